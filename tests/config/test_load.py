# SPDX-License-Identifier: Apache-2.0
"""A whole file to a checked `RunConfig`: all mistakes at once, nothing built, nothing changed."""

import dataclasses
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import pytest

from ppcls import arch, loss, metric, optimizer  # noqa: F401
from ppcls.config import RunConfig, load_config
from ppcls.config.load import REPOSITORY, find_config
from ppcls.config.registry import ARCHS, DATASETS, SCHEDULES, TRANSFORMS, Call
from ppcls.data import all as data  # noqa: F401
from ppcls.utils.errors import ConfigError

PADDLECLAS = Path(__file__).parent / "densenet121_paddleclas.yaml"
SMALL = """
Global:
  epochs: 3
Arch:
  name: DenseNet121
Loss:
  Train:
    - CELoss:
Optimizer:
  name: Momentum
  lr: {name: Cosine, learning_rate: 0.1}
"""


def infer(transforms):
    return f"{SMALL}Infer:\n  transforms: {transforms}\n  PostProcess: Topk\n"


def test_a_paddleclas_file_is_read_as_it_is():
    config = load_config(PADDLECLAS)
    assert isinstance(config, RunConfig)
    assert config.warnings == ()
    assert (config.Global.epochs, config.Global.image_shape, config.Global.pretrained_model) == (
        120,
        (3, 224, 224),
        None,
    )
    assert (config.Arch.model.name, config.Arch.model.kwargs) == ("DenseNet121", {"class_num": 1000})
    assert config.Optimizer.optimizer.kwargs == {"momentum": 0.9}
    assert config.Optimizer.lr.kwargs["values"] == [0.1, 0.01, 0.001, 0.0001]
    assert (config.Optimizer.regularizer.name, config.Optimizer.regularizer.coeff) == ("L2", 0.0001)
    operations = config.DataLoader.Train.dataset.source.kwargs["transform_ops"]
    assert [call.name for call in operations] == ["DecodeImage", "RandCropImage", "RandFlipImage", "NormalizeImage"]
    assert operations[3].kwargs["scale"] == 1 / 255
    assert config.DataLoader.Eval.sampler.kwargs == {"batch_size": 64, "drop_last": False, "shuffle": False}
    assert config.Infer.transforms[-1].name == "ToCHWImage"
    assert config.Metric.Eval[0].kwargs == {"topk": [1, 5]}
    assert (config.AMP, config.EMA) == (None, None)


def test_loading_takes_less_than_a_second():
    started = time.process_time()
    load_config(PADDLECLAS)
    assert time.process_time() - started < 1


def test_nothing_expensive_is_built(write, register):
    built = []

    def FakeNet(class_num: int = 10):
        built.append("net")

    def FakeData(root: str):
        built.append("data")

    register(ARCHS, FakeNet)
    register(DATASETS, FakeData)
    text = "Global: {}\nArch: {name: FakeNet}\nDataLoader: {Train: {dataset: {name: FakeData, root: x}, sampler: "
    config = load_config(write(text + "{batch_size: 1}}}\n"))
    assert built == []
    assert isinstance(config.Arch.model, Call)
    config.Arch.model()
    assert built == ["net"]


def test_a_config_cannot_be_changed(write):
    config = load_config(write(SMALL))
    for part, field in ((config, "Global"), (config.Global, "epochs"), (config.Arch, "model")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(part, field, None)


def test_all_mistakes_of_a_file_come_in_one_error(problems_of):
    text = """
    Global:
      epohcs: 3
      seed: x
    Arch:
      name: DenseNet12
    Loss:
      Train:
        - CELoss:
            epsilon: 2
    Metric:
      Eval:
        - TopkAcc: {topk: [0]}
    AMP: {level: O3}
    Slim: {}
    """
    assert problems_of(text) == [
        "x.yaml:14: Slim: this section is not supported yet (pruning and quantization); remove it",
        "x.yaml:2: Global.epohcs: Global has no parameter 'epohcs'; did you mean 'epochs'?",
        "x.yaml:3: Global.seed: expected a whole number; got 'x'",
        "x.yaml:5: Arch: unknown architecture 'DenseNet12'; did you mean 'DenseNet121'?",
        "x.yaml:13: AMP.level: expected one of 'O0', 'O1', 'O2'; got 'O3'",
        "x.yaml:8: Loss.Train.0.CELoss: epsilon must be at least 0 and below 1 (0 or null: no label smoothing); "
        "got 2.0",
        "x.yaml:12: Metric.Eval.0.TopkAcc: topk must be one or more different numbers from 1 on; got [0]",
    ]


@pytest.mark.parametrize("section", ["Global", "Arch"])
def test_a_missing_section_is_named(problems_of, section):
    text = {"Global": "Arch: {name: DenseNet121}\n", "Arch": "Global: {epochs: 1}\n"}[section]
    (problem,) = problems_of(text)
    assert problem.endswith(f": the section '{section}' is missing")


def test_an_unknown_section_is_named(problems_of):
    assert problems_of(SMALL + "Metrics: {}\n")[0] == (
        "x.yaml:11: Metrics: there is no section 'Metrics'; did you mean 'Metric'?"
    )


def test_a_wrong_inherited_value_is_reported_where_it_stands(write, problems_of):
    write(SMALL.replace("0.1", "fast"), "base.yaml")
    assert problems_of("_base_: base.yaml\nGlobal: {epochs: 5}\n") == [
        "base.yaml:10: Optimizer.lr.learning_rate: expected a number; got 'fast'"
    ]


def test_a_wrong_override_is_reported_as_the_option(problems_of):
    assert problems_of(SMALL, "Global.epohcs=3", "Optimizer.momentum=x") == [
        "-o Global.epohcs=3: Global.epohcs: Global has no parameter 'epohcs'; did you mean 'epochs'?",
        "-o Optimizer.momentum=x: Optimizer.momentum: expected a number; got 'x'",
    ]


# Keys in the wrong place


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("Global.batch_size=3", "it belongs under 'DataLoader.Eval.sampler'"),
        ("Arch.learning_rate=1", "it belongs under 'Optimizer.lr'"),
        ("Arch.epochs=3", "it belongs under 'Global'"),
        ("Optimizer.coeff=1", "it belongs under 'Optimizer.regularizer'"),
        ("Global.epsilon=0.1", "it belongs under 'Loss.Eval'"),
        ("Global.EMA={}", "'EMA' is a section; it starts at the beginning of a line"),
    ],
)
def test_a_key_in_the_wrong_section_is_told_where_it_belongs(problems_of, override, expected):
    (problem,) = problems_of(SMALL, override)
    assert problem.endswith(f"; {expected}")


def test_a_key_one_slip_away_from_one_of_its_own_block_is_misspelt_and_not_misplaced(problems_of):
    (problem,) = problems_of(SMALL, "Optimizer.lr.learning_rat=1")
    assert problem.endswith("did you mean 'learning_rate'?")


@pytest.mark.parametrize("key", ["parameters", "learning_rate", "grad_clip"])
def test_what_the_framework_supplies_cannot_be_given(problems_of, key):
    assert problems_of(SMALL, f"Optimizer.{key}=1") == [
        f"-o Optimizer.{key}=1: Optimizer.{key}: Momentum gets '{key}' from the framework; remove it"
    ]


# What constructors refuse


def test_what_a_transform_refuses_is_reported_with_its_line(problems_of):
    assert problems_of(infer("\n    - CropImage: {size: 0}")) == [
        "x.yaml:13: Infer.transforms.0.CropImage: size must be one length or [width, height], each at least 1; got 0"
    ]


def test_what_a_schedule_refuses_is_reported_with_its_line(problems_of):
    (problem,) = problems_of(SMALL, "Optimizer.lr={name: Piecewise, decay_epochs: [1], values: [1]}")
    assert problem.endswith("Optimizer.lr: Piecewise: 1 decay_epochs need 2 values; got 1")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("Optimizer={name: SGD, clip_norm: 1, clip_global_norm: 1}", "exclude each other"),
        ("Optimizer={name: SGD, clip_norm: 0}", "clip_norm must be above 0; leave it out for no clipping"),
        ("Optimizer={name: AdamW, regularizer: {name: L2, coeff: 1}}", "write weight_decay instead of regularizer"),
    ],
)
def test_what_a_section_refuses_is_reported_with_its_line(problems_of, override, expected):
    (problem,) = problems_of(SMALL, override)
    assert problem.startswith(f"-o {override}: Optimizer: ")
    assert problem.endswith(expected)


def test_a_schedule_is_tried_with_the_epochs_of_the_file(write, register):
    seen = []

    def FakeSchedule(epochs: int, step_each_epoch: int):
        seen.append(epochs)

    register(SCHEDULES, FakeSchedule)
    load_config(write(SMALL), ["Optimizer.lr=FakeSchedule"])
    assert seen == [3]


def test_a_schedule_is_tried_also_when_the_epochs_are_wrong(problems_of):
    schedule = "Optimizer.lr={name: Piecewise, decay_epochs: [1], values: [1]}"
    problems = problems_of(SMALL, schedule, "Global.epochs=x")
    assert [problem.rpartition(": ")[2] for problem in problems] == [
        "expected a whole number; got 'x'",
        "1 decay_epochs need 2 values; got 1",
    ]


def test_a_refused_part_is_reported_once_and_not_again_by_what_holds_it(problems_of, register):
    def FakeInner():
        raise ValueError("no")

    def FakeOuter(inner: Annotated[list[Callable], TRANSFORMS]):
        raise AssertionError

    register(TRANSFORMS, FakeInner)
    register(TRANSFORMS, FakeOuter)
    assert problems_of(infer("[FakeOuter: {inner: [FakeInner]}]")) == [
        "x.yaml:12: Infer.transforms.0.FakeOuter.inner.0: FakeInner: no"
    ]


def test_what_a_part_warns_of_becomes_a_warning_with_its_line(write, caplog):
    text = SMALL.replace(
        "{name: Cosine, learning_rate: 0.1}",
        "\n    name: Piecewise\n    learning_rate: 1.0\n    decay_epochs: [1]\n    values: [0.1, 0.01]",
    )
    with caplog.at_level(logging.WARNING, "ppcls"):
        (warning,) = load_config(write(text)).warnings
    assert warning.startswith("x.yaml:11: Optimizer.lr: Piecewise: ")
    assert caplog.messages == []


# Optimizers in a list


def test_a_list_of_one_optimizer_is_that_optimizer(write):
    text = SMALL.partition("Optimizer:")[0] + (
        "Optimizer:\n  - Momentum:\n      scope: all\n      momentum: 0.8\n      lr: {name: Linear, learning_rate: 1}\n"
    )
    config = load_config(write(text))
    assert (config.Optimizer.optimizer.name, config.Optimizer.scope) == ("Momentum", "all")


def test_several_optimizers_are_refused(problems_of):
    assert problems_of(SMALL, "Optimizer=[SGD, Momentum]") == [
        "-o Optimizer=[SGD, Momentum]: Optimizer: a list of several optimizers is not supported yet; keep one"
    ]


def test_another_scope_is_refused(problems_of):
    assert problems_of(SMALL, "Optimizer.scope=Head")[0].endswith(
        "Optimizer.scope: only 'all' is supported; got 'Head'"
    )


# Imports


def test_a_module_of_the_user_may_register_parts(write, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    write(
        "from ppcls.config.registry import TRANSFORMS\n\n@TRANSFORMS.register\ndef UsersOwn(size: int): ...\n",
        "users_module.py",
    )
    try:
        config = load_config(write(infer("[{UsersOwn: {size: 1}}]")), ["Global.imports=[users_module]"])
        assert config.Infer.transforms[0].name == "UsersOwn"
    finally:
        del TRANSFORMS._entries["UsersOwn"]


@pytest.mark.parametrize("module", ["no_such_module", "", ".relative"])
def test_a_module_that_cannot_be_imported_is_named(problems_of, module):
    text = SMALL.replace("epochs: 3", f"imports:\n    - '{module}'")
    (problem,) = problems_of(text)
    assert problem.startswith(f"x.yaml:3: Global.imports: '{module}' cannot be imported (")


def test_a_module_that_ends_the_program_is_named(problems_of, write, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)
    write("import sys\nsys.exit(0)\n", "users_script.py")
    (problem,) = problems_of(SMALL.replace("epochs: 3", "imports: [users_script]"))
    assert problem == (
        "x.yaml:2: Global.imports: 'users_script' ends the program when it is imported (exit code 0); "
        "guard what it runs with if __name__ == '__main__'"
    )


# Finding the file


def test_a_shipped_file_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = next((REPOSITORY / "configs").glob("**/*.yaml"), None)
    if shipped is None:
        pytest.skip("no configs/ here")
    relative = shipped.relative_to(REPOSITORY)
    assert find_config(relative).samefile(shipped)
    assert find_config(Path("ppcls") / relative).samefile(shipped)
    assert find_config(Path("./ppcls") / relative).samefile(shipped)


def test_a_file_here_comes_before_a_shipped_one(write):
    name = write("a: 1", "configs/x.yaml")
    assert find_config(name) == Path(name)


def test_a_misspelt_file_is_suggested(write):
    write("a: 1", "folder/DenseNet121.yaml")
    with pytest.raises(ConfigError) as caught:
        find_config("folder/DenseNet12.yaml")
    assert str(caught.value) == (
        "folder/DenseNet12.yaml: there is no such file; did you mean 'folder/DenseNet121.yaml'?"
    )


def test_log_ranks_are_numbers(problems_of):
    (problem,) = problems_of(SMALL, "Global.log_ranks=all")
    assert problem.endswith("Global: log_ranks must be numbers separated by commas, such as '0,1'; got 'all'")


def test_an_evaluation_decodes_every_pixel(problems_of):
    dataset = "{name: ImageNetDataset, image_root: x, cls_label_path: y, transform_ops: [{DecodeImage: {draft: True}}]}"
    (problem,) = problems_of(SMALL, f"DataLoader.Eval={{dataset: {dataset}, sampler: {{batch_size: 1}}}}")
    assert "draft is for training" in problem
