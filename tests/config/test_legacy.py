# SPDX-License-Identifier: Apache-2.0
"""What PaddleClas accepts and ignores is warned about; what it supports and we do not is refused by name."""

import pytest

from ppcls import arch, loss, metric, optimizer  # noqa: F401
from ppcls.config import legacy, load_config
from ppcls.data import all as data  # noqa: F401

TINY = "Global: {}\nArch: {name: DenseNet121}\nOptimizer: {name: AdamW, lr: {name: Cosine, learning_rate: 1}}\n"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("Optimizer.lr.step_each_epoch=1252",
         "Optimizer.lr.step_each_epoch: has no effect; the number of steps comes from the data set"),
        ("Optimizer.clip_grad=1.0",
         "Optimizer.clip_grad: PaddleClas never clips by this key and neither do we; write clip_norm to clip"),
        ("Global.class_num=10", "Global.class_num: has no effect; write Arch.class_num"),
        ("Global.is_distributed=true",
         "Global.is_distributed: has no effect; the launcher decides how many processes there are"),
        ("Global.use_fleet=true",
         "Global.use_fleet: has no effect; the launcher decides how many processes there are"),
        ("fuse_elewise_add_act_ops=true",
         "fuse_elewise_add_act_ops: has no effect; it is about training a static graph, which is not done here"),
        ("print_interval=10", "print_interval: has no effect; write Global.print_batch_step"),
        ("load_static_weights=false",
         "load_static_weights: has no effect; weight files are recognized by their content"),
    ],
)  # fmt: skip
def test_a_key_without_effect_is_a_warning_with_its_line(write, override, expected):
    config = load_config(write(TINY), [override])
    assert config.warnings == (f"-o {override}: {expected}",)


def test_a_key_without_effect_is_not_passed_on(write):
    config = load_config(write(TINY), ["Optimizer.lr.step_each_epoch=1252"])
    assert config.Optimizer.lr.kwargs == {"learning_rate": 1.0}


def test_the_same_key_elsewhere_is_an_error(problems_of):
    assert problems_of(TINY, "Arch.clip_grad=1")[0].startswith(
        "-o Arch.clip_grad=1: Arch.clip_grad: DenseNet121 has no"
    )


@pytest.mark.parametrize("section", legacy.UNSUPPORTED_SECTIONS)
def test_an_unsupported_section_is_refused_by_name(problems_of, section):
    what = legacy.UNSUPPORTED_SECTIONS[section]
    assert problems_of(f"{TINY}{section}: {{a: 1}}\n") == [
        f"x.yaml:4: {section}: this section is not supported yet ({what}); remove it"
    ]


def test_an_unknown_key_has_no_reason():
    assert legacy.reason("AdamW", "beta3") is None
