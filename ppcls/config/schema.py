# SPDX-License-Identifier: Apache-2.0
"""The typed shape of one experiment: what each section may say. The constructors here are the only schema."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from ppcls.config.registry import (
    ARCHS,
    BATCH_OPS,
    DATASETS,
    LOSSES,
    METRICS,
    OPTIMIZERS,
    POSTPROCESSES,
    SAMPLERS,
    SCHEDULES,
    TRANSFORMS,
    Block,
    Call,
    Count,
    Share,
    Within,
)

MAX_SEED = 2**31 - 1
Side = Annotated[int, Within(-1)]
"""Pixels, or -1 for any number of them."""
MAX_LOSS_SCALE = 2.0**127
"""The largest power of two that float32 holds."""


@dataclass(frozen=True)
class GlobalSettings:
    """The run as a whole.

    Args:
        output_dir: where checkpoints, logs and the resolved configuration go.
        output_url: where a copy of them is kept up to date, in object storage, such as ``s3://bucket/runs/5``.
        cache_dir: where fetched data and weights are kept; by default what ``PPCLS_CACHE`` names, or
            ``~/.cache/ppcls``.
        device: any device that Paddle lists: ``cpu``, ``gpu``, ``gpu:1``, ``xpu``, ``npu``, ``iluvatar_gpu``, ...
        epochs: passes over the training set.
        seed: everything random follows from it; the same seed gives the same run.
        pretrained_model: weights to start from, evaluate or export: a checkpoint directory, a path with or
            without its ending, or a URL.
        checkpoints: the checkpoint to continue from, also as a URL; ``auto`` means the newest in ``output_dir``,
            or in ``output_url`` when nothing is there, or a fresh start.
        save_interval: keep a checkpoint every so many epochs; the newest two are always kept. 0: only those.
        save_step_interval: also save every so many optimizer updates, in the middle of an epoch.
        keep_checkpoint_max: keep the newest so many checkpoints that verify, whatever they end on, and no others;
            ``save_interval`` then has no effect, and ``best_model`` does not count.
        save_on_all_ranks: every process writes checkpoints, process 1 to ``output_dir/rank_1`` and so on; for
            machines that share no disk.
        on_save_error: what a checkpoint that cannot be written means (the disk is full, or gone): ``continue`` to
            train and try again with the next one, until three in a row or the last one fail, or ``stop``.
        stall_timeout: seconds without any progress (an image read, a batch trained on or evaluated, in any of the
            processes) after which a run stands still. Then every process writes its stacks to ``output_dir/stalled``,
            and several processes end with exit code 6 and the name of the one that the others wait for; a single
            process warns and goes on waiting. Until the first batch is done it may take ten times as long. null: no
            watch over progress.
        eval_during_train: evaluate while training, and keep the best weights in ``best_model``.
        eval_interval: epochs between evaluations.
        start_eval_epoch: no evaluation before this epoch.
        print_batch_step: batches between log lines.
        use_visualdl: write scalars for VisualDL to ``output_dir/vdl``.
        log_ranks: the processes that log, such as ``"0,1"``.
        update_freq: batches whose gradients are averaged into one update.
        on_non_finite: what a NaN or an infinity in a batch's loss, gradients or running statistics means: ``stop``;
            ``skip`` leaves the update out; ``rollback`` also goes back to the newest checkpoint, and leaves the
            update out when it comes again. Nothing keeps a trace of the batch, all processes do the same, and the
            batch is written to ``output_dir/non_finite``.
        max_non_finite: updates that may be left out in a run by ``skip`` or ``rollback``; one more stops it.
        on_out_of_memory: ``halve`` computes the batch again in pieces of half as many images, whose gradients sum up
            to those of the batch, and goes on with such pieces; or ``stop``.
        micro_batch_size: compute at most so many images at once from the start, in each process; batch size,
            learning rate and number of updates stay what they are.
        iter_per_epoch: batches that count as an epoch, instead of the whole training set.
        image_shape: channels, height and width of the exported model's input; -1 for a height and width that are free.
        save_inference_dir: where the exported model goes.
        export_for: what an export is made for, beside Paddle Inference: ``onnxruntime`` also writes ``model.onnx``,
            ``int8`` that and ``model_int8.onnx``, in whole numbers whose ranges come from images of
            ``DataLoader.Train``; the short forms are ``--onnx`` and ``--int8``.
        allow_int8_loss: publish even if int8 answers more than half a point of the images of ``DataLoader.Eval`` less
            rightly than float32; the short form is ``--allow-int8-loss``.
        fold_preprocess: the exported graph normalizes by itself and takes bytes, uint8 [N, H, W, 3]; the short form
            is ``--fold-preprocess``.
        allow_mismatch: engines that may differ from the trained model; the export marks them as unfit instead of
            refusing.
        bundle: the directory of an exported model; evaluation and inference ask it instead of trained weights.
        runtime: what runs the exported model; ``auto`` is what was fastest at the export, ``int8`` is ONNX Runtime on
            the graph in whole numbers, ``tensorrt`` ONNX Runtime with TensorRT on a GPU.
        print_mem_info: show the memory in use in each log line.
        train_mode: how loss and output come from a batch; null is plain classification.
        eval_mode: how a model is evaluated.
        imports: Python modules to import first; what they register can be named in this file.
        to_static: true is not supported.
        use_dali: true is not supported.
        use_multilabel: true is not supported.
        uniform_output_enabled: true is not supported.
    """

    output_dir: str = "./output"
    output_url: str | None = None
    cache_dir: str | None = None
    device: str = "cpu"
    epochs: Count = 1
    seed: Annotated[int, Within(0, MAX_SEED)] = 0
    pretrained_model: str | None = None
    checkpoints: str | None = None
    save_interval: Annotated[int, Within(0)] = 1
    save_step_interval: Count | None = None
    keep_checkpoint_max: Count | None = None
    save_on_all_ranks: bool = False
    on_save_error: Literal["continue", "stop"] = "continue"
    stall_timeout: Annotated[float, Within(1)] | None = 300.0
    eval_during_train: bool = True
    eval_interval: Count = 1
    start_eval_epoch: Annotated[int, Within(0)] = 0
    print_batch_step: Count = 10
    use_visualdl: bool = False
    log_ranks: str | int = "0"
    update_freq: Count = 1
    on_non_finite: Literal["stop", "skip", "rollback"] = "stop"
    max_non_finite: Annotated[int, Within(0)] = 10
    on_out_of_memory: Literal["halve", "stop"] = "halve"
    micro_batch_size: Count | None = None
    iter_per_epoch: Count | None = None
    image_shape: tuple[Count, Side, Side] = (3, 224, 224)
    save_inference_dir: str = "./inference"
    export_for: list[Literal["paddle", "onnxruntime", "int8"]] | None = None
    allow_int8_loss: bool = False
    fold_preprocess: bool = False
    allow_mismatch: list[Literal["paddle", "paddle_onednn", "onnxruntime"]] | None = None
    bundle: str | None = None
    runtime: Literal["auto", "paddle", "paddle_onednn", "onnxruntime", "int8", "tensorrt"] = "auto"
    print_mem_info: bool = False
    train_mode: Literal[None] = None
    eval_mode: Literal["classification"] = "classification"
    imports: list[str] | None = None
    to_static: Literal[False] = False
    use_dali: Literal[False] = False
    use_multilabel: Literal[False] = False
    uniform_output_enabled: Literal[False] = False

    def __post_init__(self) -> None:
        if not all(rank.strip().isdecimal() for rank in str(self.log_ranks).split(",")):
            raise ValueError(f"log_ranks must be numbers separated by commas, such as '0,1'; got {self.log_ranks!r}")
        if self.output_url is not None and "://" not in self.output_url:
            raise ValueError("output_url must be an address such as s3://bucket/run; for a folder write output_dir")
        if self.bundle and self.pretrained_model:
            raise ValueError(
                "bundle (an exported model) and pretrained_model (weights) exclude each other; make one of them null"
            )
        if (self.image_shape[1] < 0) != (self.image_shape[2] < 0) or 0 in self.image_shape:
            raise ValueError(
                f"image_shape must have a height and a width, or -1 for both; got {list(self.image_shape)}"
            )
        if self.runtime != "auto" and not self.bundle:
            raise ValueError(f"runtime {self.runtime} runs an exported model, and bundle does not name one")


@dataclass(frozen=True)
class ArchSettings:
    """The architecture; its own parameters stand in the same block.

    Args:
        model: the architecture that the block names.
        use_sync_bn: share batch statistics between processes.
        infer_add_softmax: the exported model ends in softmax, so it answers with probabilities.
    """

    model: Annotated[Call, Block(ARCHS, inline=True)]
    use_sync_bn: bool = False
    infer_add_softmax: bool = True


@dataclass(frozen=True)
class LossItem:
    """One loss; its own parameters stand in the same block.

    Args:
        loss: the loss that the block names.
        weight: what it is multiplied with in the sum.
    """

    loss: Annotated[Call, Block(LOSSES, inline=True)]
    weight: float = 1.0


@dataclass(frozen=True)
class LossSettings:
    """What is minimized in training and reported in evaluation."""

    Train: list[LossItem]
    Eval: list[LossItem] | None = None


@dataclass(frozen=True)
class RegularizerSettings:
    """Weight decay through the gradient (L2) or by its sign (L1)."""

    name: Literal["L1", "L2"]
    coeff: Annotated[float, Within(0)]


@dataclass(frozen=True)
class OptimizerSettings:
    """The optimizer; its own parameters stand in the same block.

    Args:
        optimizer: the optimizer that the block names.
        lr: the schedule of the learning rate, or the rate itself.
        regularizer: weight decay; it takes the place of a ``weight_decay`` beside it.
        clip_norm: each gradient tensor is scaled down to at most this norm, by itself.
        clip_global_norm: all gradients together are scaled down to at most this norm.
        no_weight_decay_name: words, separated by spaces; parameters with one in their name are not decayed.
        one_dim_param_no_weight_decay: parameters of one dimension (biases, norms) are not decayed.
        scope: the part of the model that it trains; only the whole is supported.

    Raises:
        ValueError: both clips, a clip of 0, or a regularizer for AdamW.
    """

    optimizer: Annotated[
        Call,
        Block(
            OPTIMIZERS,
            inline=True,
            runtime=("parameters", "learning_rate", "grad_clip", "name", "apply_decay_param_fun", "lr_ratio"),
        ),
    ]
    lr: (
        Annotated[Call, Block(SCHEDULES, runtime=("epochs", "step_each_epoch"), default="Constant")]
        | Annotated[float, Within(0)]
    ) = 0.001
    regularizer: RegularizerSettings | None = None
    clip_norm: float | None = None
    clip_global_norm: float | None = None
    no_weight_decay_name: str | None = None
    one_dim_param_no_weight_decay: bool = False
    scope: Literal["all"] = "all"

    def __post_init__(self) -> None:
        if self.clip_norm is not None and self.clip_global_norm is not None:
            raise ValueError("clip_norm (each gradient) and clip_global_norm (all together) exclude each other")
        for name in ("clip_norm", "clip_global_norm"):
            norm = getattr(self, name)
            if norm is not None and norm <= 0:
                raise ValueError(f"{name} must be above 0; leave it out for no clipping")
        if self.optimizer.name == "AdamW" and self.regularizer is not None:
            raise ValueError("AdamW decays weights apart from gradients; write weight_decay instead of regularizer")


@dataclass(frozen=True)
class WorkerSettings:
    """How a data set is read.

    Args:
        num_workers: processes that read and transform images; 0 does it in the training process. By default one
            for each core that a process of the run has, at most 8; none on a single core, and none for images that
            lie in memory and are made many at a time.
        use_shared_memory: hand batches over in shared memory.
        prefetch_factor: batches that each worker makes ahead.
        timeout: seconds that one image may take; a worker that needs longer is ended, named and replaced.
    """

    num_workers: Annotated[int, Within(0)] | None = None
    use_shared_memory: bool = True
    prefetch_factor: Count = 2
    timeout: Annotated[float, Within(1)] = 120.0


@dataclass(frozen=True)
class DatasetSettings:
    """The data set; its own parameters stand in the same block.

    Args:
        source: the data set that the block names.
        batch_transform_ops: operations on whole training batches, after ``transform_ops``: mixup and its like.
    """

    source: Annotated[Call, Block(DATASETS, inline=True)]
    batch_transform_ops: Annotated[list[Call], Block(BATCH_OPS, runtime=("class_num",))] | None = None


@dataclass(frozen=True)
class LoaderSettings:
    """A data set, the order in which it is read, and by how many processes.

    Args:
        dataset: where images and labels come from.
        sampler: the order of the images, and how many make a batch.
        loader: the processes that read them.
        on_bad_sample: an image that cannot be read ends the run; or ``skip``: in training another takes its place,
            which the seed chooses, and in evaluation it is left out and said so.
        max_bad_fraction: with ``skip``, the share of the images that may be bad; more end the run. With several
            processes, of those that each of them reads.
    """

    dataset: DatasetSettings
    sampler: Annotated[
        Call,
        Block(
            SAMPLERS,
            runtime=("num_samples", "labels", "rank", "num_replicas", "seed", "pad"),
            default="DistributedBatchSampler",
        ),
    ]
    loader: WorkerSettings = WorkerSettings()
    on_bad_sample: Literal["error", "skip"] = "error"
    max_bad_fraction: Share = 0.01


@dataclass(frozen=True)
class DataLoaderSettings:
    """Where images come from.

    Raises:
        ValueError: images of the evaluation would be mixed, or decoded by halves.
    """

    Train: LoaderSettings | None = None
    Eval: LoaderSettings | None = None

    def __post_init__(self) -> None:
        if self.Eval and self.Eval.dataset.batch_transform_ops:
            raise ValueError("Eval.dataset.batch_transform_ops would mix the images of the evaluation; remove it")
        ops = self.Eval.dataset.source.kwargs.get("transform_ops") if self.Eval else None
        if any(op.kwargs.get("draft") for op in ops or ()):
            raise ValueError("Eval.dataset.transform_ops: draft is for training; an evaluation looks at every pixel")


@dataclass(frozen=True)
class MetricSettings:
    """What is measured; the first figure of ``Eval`` decides which weights are best."""

    Train: Annotated[list[Call], METRICS] | None = None
    Eval: Annotated[list[Call], METRICS] | None = None


@dataclass(frozen=True)
class InferSettings:
    """Answers for single images.

    Args:
        transforms: what happens to an image before the model sees it.
        PostProcess: what happens to the model's output.
        infer_imgs: an image, or a folder of images.
        infer_list: a text file with one image path a line, relative to ``infer_imgs``.
        batch_size: images answered at once.
        save_dir: also write the answers to this JSON file.
    """

    transforms: Annotated[list[Call], TRANSFORMS]
    PostProcess: Annotated[Call, POSTPROCESSES]
    infer_imgs: str | None = None
    infer_list: str | None = None
    batch_size: Count = 1
    save_dir: str | None = None


@dataclass(frozen=True)
class AMPSettings:
    """Mixed precision; the section's presence turns it on.

    Args:
        use_amp: false turns it off again.
        level: O1 runs chosen operators in the small type, O2 nearly all; O0 stays in float32 and scales the loss
            all the same, which is how to try loss scaling on a device without small types, such as a CPU.
        dtype: the small type.
        scale_loss: the loss is multiplied with this so that small gradients survive float16.
        use_dynamic_loss_scaling: halve the scale when a gradient overflows, and double it after a while without;
            either way an update that overflowed is left out, counted and logged.
        min_loss_scale: the least that halving leads to.
        incr_every_n_steps: updates without overflow after which a dynamic scale doubles.
        decr_every_n_nan_or_inf: overflows in a row after which it halves.
        use_fp16_test: evaluate in the small type too.
        use_promote: O2: an operator runs in the widest type of its inputs.

    Raises:
        ValueError: a dynamic scale would begin below its least.
    """

    use_amp: bool = True
    level: Literal["O0", "O1", "O2"] = "O1"
    dtype: Literal["float16", "bfloat16"] = "float16"
    scale_loss: Annotated[float, Within(1, MAX_LOSS_SCALE)] = 1.0
    use_dynamic_loss_scaling: bool = False
    min_loss_scale: Annotated[float, Within(1, MAX_LOSS_SCALE)] = 1.0
    incr_every_n_steps: Count = 1000
    decr_every_n_nan_or_inf: Count = 1
    use_fp16_test: bool = False
    use_promote: bool = False

    def __post_init__(self) -> None:
        if self.use_dynamic_loss_scaling and self.scale_loss < self.min_loss_scale:
            raise ValueError(f"scale_loss is {self.scale_loss:g}, below min_loss_scale {self.min_loss_scale:g}")


@dataclass(frozen=True)
class EMASettings:
    """A moving average of the weights; the section's presence turns it on.

    Args:
        decay: the share of the old average that each update keeps.
    """

    decay: Share = 0.9999


@dataclass(frozen=True)
class RunConfig:
    """One experiment, checked and frozen; its fields are the sections of the YAML file.

    Attributes:
        call: the same as a tree of calls that remembers where each value stands.
        warnings: what the file says that has no effect.
    """

    Global: GlobalSettings
    Arch: ArchSettings
    Loss: LossSettings | None = None
    Optimizer: OptimizerSettings | None = None
    DataLoader: DataLoaderSettings = DataLoaderSettings()
    Metric: MetricSettings = MetricSettings()
    Infer: InferSettings | None = None
    AMP: AMPSettings | None = None
    EMA: EMASettings | None = None
    call: Call = field(init=False, repr=False, compare=False)
    warnings: tuple[str, ...] = field(init=False, repr=False, compare=False, default=())
