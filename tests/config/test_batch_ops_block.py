# SPDX-License-Identifier: Apache-2.0
"""``batch_transform_ops`` beside the data set's own keys, and ``OpSampler``, whose keys are operations."""

import pytest

from ppcls import arch  # noqa: F401
from ppcls.config import load_config
from ppcls.config.resolved import resolved_text
from ppcls.data import all as data  # noqa: F401
from ppcls.utils.errors import ConfigError

TRAIN = """
Global: {}
Arch: {name: DenseNet121, class_num: 7}
DataLoader:
  Train:
    dataset:
      name: ImageNetDataset
      image_root: images
      cls_label_path: list.txt
      batch_transform_ops:
        - %s
    sampler: {batch_size: 4}
"""
OP_SAMPLER = """OpSampler:
            MixupOperator:
              alpha: 0.8
              prob: 0.5
            CutmixOperator: {prob: 2/10}"""


def load(write, op):
    return load_config(write(TRAIN % op))


def problem(write, op):
    with pytest.raises(ConfigError) as caught:
        load(write, op)
    return str(caught.value)


def test_batch_operations_stand_among_the_keys_of_the_data_set(write):
    dataset = load(write, "MixupOperator: {alpha: 0.2}").DataLoader.Train.dataset
    assert dataset.source.kwargs == {"image_root": "images", "cls_label_path": "list.txt"}
    (op,) = (call(class_num=7) for call in dataset.batch_transform_ops)
    assert (type(op).__name__, op.alpha, op.class_num) == ("MixupOperator", 0.2, 7)


def test_each_key_of_an_op_sampler_is_an_operation(write):
    (call,) = load(write, OP_SAMPLER).DataLoader.Train.dataset.batch_transform_ops
    sampler = call(class_num=7)
    assert [(type(op).__name__, op.alpha, op.class_num) for op in sampler.ops] == [
        ("MixupOperator", 0.8, 7),
        ("CutmixOperator", 0.2, 7),
    ]
    assert sampler.ends == [0.5, 0.7]


@pytest.mark.parametrize("op", ["MixupOperator: {alpha: 0.2}", "CutmixOperator:", OP_SAMPLER])
@pytest.mark.parametrize("with_origins", [False, True])
def test_the_resolved_text_means_the_same(write, op, with_origins):
    config = load(write, op)
    text = resolved_text(config.call, with_origins)
    again = load_config(write(text))
    assert resolved_text(again.call) == resolved_text(config.call)
    assert repr(again.DataLoader.Train.dataset.batch_transform_ops[0](class_num=7)) == repr(
        config.DataLoader.Train.dataset.batch_transform_ops[0](class_num=7)
    )


def test_an_operation_without_a_probability_is_warned_about(write):
    config = load(write, "OpSampler: {MixupOperator: {prob: 1}, CutmixOperator: {alpha: 1.0}}")
    (warning,) = config.warnings
    place = "DataLoader.Train.dataset.batch_transform_ops.0.OpSampler"
    assert warning == f"x.yaml:10: {place}: CutmixOperator has prob 0, so it is never chosen"


@pytest.mark.parametrize(
    ("op", "text"),
    [
        ("MixupOperator: {alpha: 0}", "0.MixupOperator: alpha must be above 0; got 0"),
        ("MixupOperator: {class_num: 7}", "MixupOperator gets 'class_num' from the framework; remove it"),
        ("MixupOperator: {alfa: 1}", "MixupOperator has no parameter 'alfa'; did you mean 'alpha'?"),
        ("MixupOperater:", "unknown batch operation 'MixupOperater'; did you mean 'MixupOperator'?"),
        ("OpSampler:", "name at least one operation"),
        ("OpSampler: {MixupOperator: {prob: 0.8}, CutmixOperator: {prob: 0.3}}", "sum up to 1.1, more than 1"),
        ("OpSampler: {MixupOperator: {prob: 1.5}}", "0.OpSampler.MixupOperator.prob: expected 0 to 1; got 1.5"),
        ("OpSampler: {Mixup: {prob: 0.5}}", "0.OpSampler: unknown batch operation 'Mixup'"),
        ("OpSampler: {MixupOperator: {alpha: -1, prob: 1}}", "0.OpSampler.MixupOperator: alpha must be above 0"),
        ("OpSampler: {MixupOperator: {porb: 1}}", "has no parameter 'porb'; did you mean 'prob'?"),
        ("MixupCutmixHybrid: {num_classes: 1000}", "num_classes is 1000, but Arch.class_num is 7"),
        ("MixupCutmixHybrid: {mixup_alpha: 0}", "neither mixup_alpha nor cutmix_alpha is above 0"),
        ("MixupCutmixHybrid: {cutmix_minmax: [0.8, 0.2]}", "two rising numbers within 0..1; got [0.8, 0.2]"),
        ("MixupCutmixHybrid: {mode: half}", "expected one of 'batch', 'pair', 'elem'; got 'half'"),
    ],
)
def test_a_wrong_operation_is_one_line_that_says_where(write, op, text):
    message = problem(write, op)
    assert text in message
    assert message.count("\n") == 0
    assert message.startswith("x.yaml:10: DataLoader.Train.dataset.batch_transform_ops.0")


def test_images_of_the_evaluation_are_never_mixed(write):
    with pytest.raises(ConfigError, match=r"x.yaml:3: DataLoader: Eval.dataset.batch_transform_ops would mix"):
        load_config(write((TRAIN % "MixupOperator:").replace("Train:", "Eval:")))
