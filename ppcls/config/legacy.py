# SPDX-License-Identifier: Apache-2.0
"""Keys that PaddleClas accepts and never uses: a warning says so, and the run goes on without them."""

from __future__ import annotations

_STATIC = "has no effect; it is about training a static graph, which is not done here"

_REASONS = {
    ("AdamW", "clip_grad"): "PaddleClas never clips by this key and neither do we; write clip_norm to clip",
    ("AdamWDL", "clip_grad"): "PaddleClas never clips by this key and neither do we; write clip_norm to clip",
    ("*", "step_each_epoch"): "has no effect; the number of steps comes from the data set",
    ("Constant", "warmup_epoch"): "has no effect; write ConstLR for a warmup",
    ("Constant", "warmup_start_lr"): "has no effect; write ConstLR for a warmup",
    ("RMSProp", "multi_precision"): "has no effect; Paddle's RMSProp has no full copies of small weights",
    ("MultiStepDecay", "verbose"): "has no effect; the log has the learning rate of every line",
    ("GlobalSettings", "class_num"): "has no effect; write Arch.class_num",
    ("GlobalSettings", "image_channel"): "has no effect; write Global.image_shape",
    ("GlobalSettings", "is_distributed"): "has no effect; the launcher decides how many processes there are",
    ("GlobalSettings", "distributed"): "has no effect; the launcher decides how many processes there are",
    ("GlobalSettings", "use_fleet"): "has no effect; the launcher decides how many processes there are",
    ("RunConfig", "load_static_weights"): "has no effect; weight files are recognized by their content",
    ("RunConfig", "fuse_bn_act_ops"): _STATIC,
    ("RunConfig", "fuse_bn_add_act_ops"): _STATIC,
    ("RunConfig", "fuse_elewise_add_act_ops"): _STATIC,
    ("RunConfig", "enable_addto"): _STATIC,
    ("RunConfig", "print_interval"): "has no effect; write Global.print_batch_step",
    ("RunConfig", "ls_epsilon"): "has no effect; write Loss.Train.0.CELoss.epsilon",
}

_UNSUPPORTED = {
    ("LoaderSettings", "Query"): "retrieval",
    ("LoaderSettings", "Gallery"): "retrieval",
    ("DataLoaderSettings", "UnLabelTrain"): "semi-supervised training",
    ("LossSettings", "Basic"): "meta-learning",
}

UNSUPPORTED_SECTIONS = {
    "Slim": "pruning and quantization",
    "SSL": "semi-supervised training",
    "UnLabelLoss": "semi-supervised training",
    "MLDecoder": "the multi-label decoder head",
    "IndexProcess": "building a retrieval index",
    "DistributedStrategy": "hybrid parallel strategies",
    "profiler_options": "profiling from a file",
}


def reason(owner: str, key: str) -> str | None:
    """Why a key of ``owner`` (a callable's name) has no effect, or ``None`` when it is simply unknown."""
    return _REASONS.get((owner, key)) or _REASONS.get(("*", key))


def unsupported(owner: str, key: str) -> str | None:
    """What a key of PaddleClas's that is not supported yet is about, or ``None``."""
    return UNSUPPORTED_SECTIONS.get(key) if owner == "RunConfig" else _UNSUPPORTED.get((owner, key))
