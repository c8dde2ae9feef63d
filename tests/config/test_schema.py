# SPDX-License-Identifier: Apache-2.0
"""The fixed sections: what may be absent, what presence means, and ranges."""

import pytest

from ppcls import arch, loss, metric, optimizer  # noqa: F401
from ppcls.config import load_config, schema
from ppcls.config.annotation import parameters_of
from ppcls.data import all as data  # noqa: F401

TINY = "Global: {}\nArch: {name: DenseNet121}\nOptimizer: {name: SGD}\n"


def load(write, *overrides):
    return load_config(write(TINY), overrides)


def test_optional_sections_may_be_absent(write):
    config = load_config(write("Global: {}\nArch: {name: DenseNet121}\n"))
    assert (config.Loss, config.Optimizer, config.Infer, config.AMP, config.EMA) == (None,) * 5
    assert (config.DataLoader.Train, config.DataLoader.Eval, config.Metric.Train, config.Metric.Eval) == (None,) * 4


def test_a_section_without_anything_in_it_has_its_defaults(write):
    assert load_config(write("Global:\nArch: {name: DenseNet121}\n")).Global == schema.GlobalSettings()


def test_an_empty_ema_section_means_on_with_defaults(write):
    ema = load(write, "EMA={}").EMA
    assert ema.decay == 0.9999


def test_the_presence_of_amp_means_on(write):
    amp = load(write, "AMP.scale_loss=128").AMP
    assert (amp.use_amp, amp.scale_loss) == (True, 128.0)


def test_a_section_that_is_null_is_absent(write):
    config = load(write, "AMP=null", "EMA=null", "Infer=null", "Metric.Train=null")
    assert (config.AMP, config.EMA, config.Infer, config.Metric.Train) == (None,) * 4


def test_the_word_none_is_null_where_null_is_allowed(write):
    config = load(write, "Optimizer.no_weight_decay_name=None", "Global.train_mode=None", "Global.checkpoints=None")
    assert config.Optimizer.no_weight_decay_name is None
    assert config.Global.train_mode is None
    assert config.Global.checkpoints is None


def test_a_null_regularizer_is_none(write):
    assert load(write, "Optimizer.regularizer=null").Optimizer.regularizer is None


@pytest.mark.parametrize("text", ["1e-8", "1.0e-8", "0.00000001"])
def test_a_small_number_may_be_written_in_any_way(write, text):
    config = load(write, f"Optimizer.regularizer={{name: L2, coeff: {text}}}")
    assert config.Optimizer.regularizer.coeff == 1e-8


def test_a_text_that_looks_like_a_number_stays_a_text(write):
    assert load(write, "Global.output_dir=1e-8").Global.output_dir == "1e-8"


def test_a_learning_rate_may_be_a_number_or_a_schedule(write):
    assert load(write, "Optimizer.lr=1e-3").Optimizer.lr == 0.001
    assert load(write, "Optimizer.lr={learning_rate: 1e-3}").Optimizer.lr.name == "Constant"
    assert load(write, "Optimizer.lr={name: Cosine, learning_rate: 1}").Optimizer.lr.name == "Cosine"


def test_the_weight_of_a_loss_stands_among_its_own_keys(write):
    item = load(write, "Loss.Train=[{CELoss: {weight: 2, epsilon: 0.1}}]").Loss.Train[0]
    assert (item.weight, item.loss.kwargs) == (2.0, {"epsilon": 0.1})


def test_a_sampler_without_a_name_is_the_usual_one(write):
    text = "DataLoader.Train={dataset: {name: ImageNetDataset, image_root: x, cls_label_path: y}, sampler: "
    loader = load(write, text + "{batch_size: 2}}").DataLoader.Train
    assert loader.sampler.name == "DistributedBatchSampler"
    assert loader.loader == schema.WorkerSettings()


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("Global.epochs=0", "Global.epochs: expected at least 1; got 0"),
        ("Global.seed=-1", "Global.seed: expected 0 to 2147483647; got -1"),
        ("Global.seed=4294967296", "Global.seed: expected 0 to 2147483647; got 4294967296"),
        ("Global.epochs=1.5", "Global.epochs: expected a whole number; got 1.5"),
        ("Global.epochs=None", "Global.epochs: expected a whole number; got 'None'"),
        ("Global.epochs=true", "Global.epochs: expected a whole number; got true"),
        ("Global.image_shape=[3, 224]", "Global.image_shape: expected 3 values; got 2"),
        ("Global.image_shape=[0, 8, 8]", "Global.image_shape.0: expected at least 1; got 0"),
        ("Global.image_shape=[3, -2, 8]", "Global.image_shape.1: expected at least -1; got -2"),
        ("Global.iter_per_epoch=0", "Global.iter_per_epoch: expected at least 1; got 0"),
        ("Global.use_dali=true", "Global.use_dali: only false is supported; got true"),
        ("Global.eval_mode=retrieval", "Global.eval_mode: only 'classification' is supported; got 'retrieval'"),
        ("Global.train_mode=progressive", "Global.train_mode: only null is supported; got 'progressive'"),
        ("Global=3", "Global: expected a mapping of parameters, got 3"),
        ("EMA.decay=1.5", "EMA.decay: expected 0 to 1; got 1.5"),
        ("EMA=true", "EMA: expected a mapping or null; got true"),
        ("AMP.dtype=float32", "AMP.dtype: expected one of 'float16', 'bfloat16'; got 'float32'"),
        ("Optimizer.lr=[1]", "Optimizer.lr: expected a schedule or a number (at least 0); got a list of 1"),
        ("Optimizer.regularizer=L2", "Optimizer.regularizer: expected a mapping or null; got 'L2'"),
        ("Optimizer.regularizer={name: L3, coeff: 1}",
         "Optimizer.regularizer.name: expected one of 'L1', 'L2'; got 'L3'"),
        ("Optimizer.regularizer={name: L2}", "Optimizer.regularizer: Regularizer needs 'coeff', "
         "which has no default"),
        ("Loss={}", "Loss: Loss needs 'Train', which has no default"),
        ("Loss.Train={CELoss: {}}", "Loss.Train: expected a list of (a loss); got a mapping with 'CELoss'"),
        ("Arch.use_sync_bn=maybe", "Arch.use_sync_bn: expected true or false; got 'maybe'"),
        ("DataLoader.Train.loader={num_workers: -1}",
         "DataLoader.Train.loader.num_workers: expected at least 0; got -1"),
    ],
)  # fmt: skip
def test_a_wrong_value_says_what_is_expected(problems_of, override, expected):
    problems = problems_of(TINY, override)
    assert any(problem.startswith(f"-o {override}: {expected}") for problem in problems), problems


@pytest.mark.parametrize("shape", [[3, 0, 1], [3, -1, 8], [3, 8, -1]])
def test_height_and_width_of_images_are_both_given_or_both_free(problems_of, shape):
    (problem,) = problems_of(TINY, f"Global.image_shape={shape}")
    assert problem.endswith(f"Global: image_shape must have a height and a width, or -1 for both; got {shape}")


def test_every_key_of_a_section_is_described():
    def sections(target):
        for name, item in parameters_of(target).items():
            for hint in (item.annotation, *getattr(item.annotation, "__args__", ())):
                if getattr(hint, "__module__", "") == schema.__name__ and isinstance(hint, type):
                    yield name, hint

    for _, settings in sections(schema.RunConfig):
        if "Args:" in settings.__doc__:
            missing = [key for key in parameters_of(settings) if f"\n        {key}: " not in settings.__doc__]
            assert missing == [], settings.__name__
