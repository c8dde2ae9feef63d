# SPDX-License-Identifier: Apache-2.0
"""Which changes of a configuration a run goes on with, key by key; real runs are in tests/reliability."""

import dataclasses
import re
from pathlib import Path

import pytest
import yaml

from ppcls.config import load_config
from ppcls.config.resolved import resolved_text, resolved_tree
from ppcls.config.schema import GlobalSettings
from ppcls.engine.changed_config import TABLE, Changes, ComparedConfig, Verdict, changes, rule_for

REPOSITORY = Path(__file__).resolve().parents[2]
DIGITS = REPOSITORY / "configs" / "quick_start" / "digits.yaml"
AUGMENTED = REPOSITORY / "configs" / "_base_" / "efficientnet_lite.yaml"
DOCUMENT = REPOSITORY / "docs" / "reliability.md"


def compared(*overrides, config=DIGITS):
    return ComparedConfig.of(load_config(config, overrides).call)


def judged(before, now, inside=False, keeps_rate=True):
    return changes(compared(*before).tree, compared(*now), True, inside, keeps_rate)


def test_the_same_configuration_has_not_changed():
    assert judged([], [], inside=True) == Changes()


@pytest.mark.parametrize("config", sorted(REPOSITORY.glob("configs/**/*.yaml")), ids=lambda path: path.stem)
def test_the_tree_is_what_the_text_reads_as(config):
    if "_base_" in config.parts:
        pytest.skip("a part of a file")
    call = load_config(config).call
    assert resolved_tree(call) == yaml.safe_load(resolved_text(call))


def test_the_written_configuration_is_the_same_configuration(tmp_path):
    (tmp_path / "config.yaml").write_text(resolved_text(load_config(DIGITS).call))
    assert compared(config=tmp_path / "config.yaml").tree == compared().tree


def test_what_is_free_is_not_even_kept():
    tree = compared("DataLoader.Train.loader.num_workers=3", "Global.output_dir=elsewhere").tree
    assert "output_dir" not in tree["Global"]
    assert "loader" not in tree["DataLoader"]["Train"]
    assert "Infer" not in tree
    assert tree == compared("Global.print_batch_step=7", "Infer.batch_size=5").tree


@pytest.mark.parametrize(
    ("key", "before", "now", "verdict"),
    [
        ("Arch.class_num", "10", "11", Verdict.REFUSED),
        ("Optimizer.lr.by_epoch", "false", "true", Verdict.REFUSED),
        ("Optimizer.lr.learning_rate", "0.05", "0.01", Verdict.TOLD),
        ("Optimizer.lr.name", "Cosine", "Linear", Verdict.TOLD),
        ("Optimizer.momentum", "0.9", "0.8", Verdict.TOLD),
        ("Global.seed", "0", "1", Verdict.BETWEEN_EPOCHS),
        ("Global.epochs", "10", "12", Verdict.SAME_RATE),
        ("DataLoader.Train.sampler.shuffle", "true", "false", Verdict.BETWEEN_EPOCHS),
        ("DataLoader.Train.sampler.batch_size", "32", "16", Verdict.TOLD),
        ("DataLoader.Train.dataset.image_root", "dataset/digits", "/data", Verdict.TOLD),
        ("DataLoader.Train.dataset.relabel", "false", "true", Verdict.BETWEEN_EPOCHS),
        ("DataLoader.Eval.dataset.relabel", "false", "true", Verdict.NEW_BEST),
    ],
)
def test_a_change_is_shown_and_judged_by_its_row(key, before, now, verdict):
    assert rule_for(key).verdict is verdict
    for inside in (False, True):
        for keeps_rate in (False, True):
            found = judged([f"{key}={before}"], [f"{key}={now}"], inside, keeps_rate)
            refused = verdict is Verdict.REFUSED or (verdict is Verdict.BETWEEN_EPOCHS and inside)
            refused |= verdict is Verdict.SAME_RATE and not keeps_rate
            (line, *_) = found.refused if refused else found.told
            start = f"{key}: {yaml.safe_load(before)} -> {yaml.safe_load(now)}"
            assert line.lower().startswith(start.lower())
            assert bool(found.refused) is refused
            assert found.is_measured_otherwise is (verdict is Verdict.NEW_BEST)


def test_the_rate_of_dropout_may_change_and_the_size_of_a_layer_may_not():
    before, now = (
        [f"Arch={{name: DenseNet121, dropout: {rate}, bn_size: {size}}}"] for rate, size in ((0, 4), (0.5, 8))
    )
    found = judged(before, now)
    assert [line.partition(": ")[0] for line in found.told] == ["Arch.dropout"]
    assert [line.partition(": ")[0] for line in found.refused] == ["Arch.bn_size"]


def test_every_difference_is_there_refused_or_told():
    before, now = (
        [f"Optimizer={{name: {name}, lr: {{name: Cosine, learning_rate: 0.05, eta_min: {rate}}}}}"]
        for name, rate in (("Adam", 0), ("SGD", 0.001))
    )
    found = judged(before, [*now, "Arch.class_num=11", "Global.output_dir=x"])
    assert [line.partition(": ")[0] for line in found.refused] == ["Arch.class_num", "Optimizer.name"]
    assert [line.partition(": ")[0] for line in found.told] == ["Optimizer.lr.eta_min"]


def test_other_epochs_are_told_when_the_schedule_was_changed_too():
    now = ["Global.epochs=12", "Optimizer.lr={name: Constant, learning_rate: 0.001}"]
    found = judged([], now, keeps_rate=False)
    assert found.refused == ()
    told = [line.partition(" (")[0] for line in found.told]
    rate = "Optimizer.lr.learning_rate: 0.05 -> 0.001"
    assert told == ["Global.epochs: 10 -> 12", "Optimizer.lr.name: Cosine -> Constant", rate]


def test_the_parameters_of_another_part_are_its_own():
    now = ["Optimizer.lr={name: Step, learning_rate: 0.05, step_size: 3, gamma: 0.5, warmup_epoch: 1}"]
    assert [line.partition(" (")[0] for line in judged([], now).told] == ["Optimizer.lr.name: Cosine -> Step"]


def test_a_rate_that_becomes_a_schedule_is_one_line():
    (line,) = judged(["Optimizer.lr=0.1"], []).told
    assert line.startswith("Optimizer.lr: 0.1 -> {name: Cosine, learning_rate: 0.05, ")


def test_a_list_of_other_parts_is_shown_by_their_names():
    ops = "DataLoader.Train.dataset.transform_ops"
    (line,) = judged(
        [f"{ops}=[DecodeImage: , NormalizeImage: ]"], [f"{ops}=[DecodeImage: , RandFlipImage: , ToCHWImage: ]"]
    ).told
    assert line.startswith(f"{ops}: [DecodeImage, NormalizeImage] -> [DecodeImage, RandFlipImage, ToCHWImage] (")


def test_a_parameter_of_a_part_in_a_list_is_shown_by_its_number():
    ops = "DataLoader.Train.dataset.transform_ops"
    before, now = ([f"{ops}=[DecodeImage: , RandCropImage: {{size: {size}}}]"] for size in (8, 16))
    (line,) = judged(before, now).told
    assert line.startswith(f"{ops}.1.RandCropImage.size: 8 -> 16 (")


@pytest.mark.parametrize(("section", "text"), [("EMA", "{decay: 0.9}"), ("AMP", "{level: O1}")])
def test_a_section_that_comes_or_goes_is_one_line(section, text):
    (line,) = judged([], [f"{section}={text}"]).told
    assert line.startswith(f"{section}: null -> {{")
    (line,) = judged([f"{section}={text}"], []).told
    assert " -> null (" in line


def test_a_default_that_a_newer_version_brings_is_no_change():
    tree = compared().tree
    del tree["Global"]["epochs"], tree["Optimizer"]["clip_norm"], tree["Arch"]["use_sync_bn"]
    given = compared()
    assert changes(tree, dataclasses.replace(given, given={}), True, True, True) == Changes()


def test_a_key_that_an_older_version_does_not_know_is_told_when_the_file_gives_it():
    tree = compared().tree
    del tree["Optimizer"]["clip_norm"]
    (line,) = changes(tree, compared("Optimizer.clip_norm=1.0"), True, True, True).told
    assert line.startswith("Optimizer.clip_norm: (not there) -> 1 (")


def test_a_key_that_this_version_does_not_know_is_told_and_never_refused():
    tree = compared().tree
    tree["Arch"]["future"] = 3
    found = changes(tree, compared(), True, True, True)
    assert found == Changes(told=("Arch.future: 3 -> (not there) (from here on)",))


def test_of_an_old_checkpoint_only_what_it_has_is_compared():
    now = compared()
    before = {"Arch": {"name": "TinyDarkNet", "class_num": 10}, "Optimizer": {"name": "Momentum"}}
    assert changes(before, now, False, True, True) == Changes()
    before["Arch"]["class_num"] = 7
    (line,) = changes(before, now, False, True, True).refused
    assert line.startswith("Arch.class_num: 7 -> 10: ")


def test_a_long_value_is_cut():
    tree = compared().tree
    tree["Optimizer"]["momentum"] = "x" * 1000
    (line,) = changes(tree, compared(), True, True, True).told
    assert len(line) < 200


def test_no_password_is_kept():
    tree = compared("DataLoader.Train.dataset.image_root=s3://user:secret@bucket/images").tree
    assert "secret" not in str(tree)


def test_every_key_of_the_section_global_has_a_row_of_its_own():
    (last,) = TABLE[-1].keys
    assert last == "**"
    keys = [f"Global.{field.name}" for field in dataclasses.fields(GlobalSettings)]
    assert [key for key in keys if rule_for(key) is TABLE[-1]] == [], "give it a row in ppcls/engine/changed_config.py"


def test_every_row_is_about_something_that_no_row_before_it_decides():
    for number, rule in enumerate(TABLE):
        for key in rule.keys:
            example = key.replace("**", "x.y").replace("*", "x")
            assert rule_for(example) is rule, f"row {number}: {key}"


def test_the_table_of_the_document_is_the_table():
    text = DOCUMENT.read_text(encoding="utf-8")
    (table,) = re.findall(r"^\| key \|.*\n\|[-| ]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    rows = [[cell.strip() for cell in line.strip("|\n").split(" | ")] for line in table.splitlines()]
    expected = [[" ".join(f"`{key}`" for key in rule.keys), rule.verdict.value, rule.reason] for rule in TABLE]
    assert rows == expected
