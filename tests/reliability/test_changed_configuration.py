# SPDX-License-Identifier: Apache-2.0
"""Toy trainings that go on with another configuration than they began with: refused, or told what differs."""

import json
import shutil

import pytest
import toys

from ppcls.config import load_config
from ppcls.engine import Engine
from ppcls.engine.changed_config import rule_for
from ppcls.utils.errors import ConfigError, DataError, StorageError
from ppcls.utils.logger import stop_logging
from ppcls.utils.manifest import MANIFEST
from ppcls.utils.storage import published, verify

# 40 images in batches of 8 are 5 updates an epoch: checkpoints after 4 and 8 of them, and at the ends.
SETTINGS = ["Global.epochs=2", "Global.save_step_interval=4", "Global.keep_checkpoint_max=9", "Global.log_ranks=0"]
END, MIDDLE = "epoch_1", "epoch_1_step_4"
COSINE = "Optimizer.lr={name: Cosine, learning_rate: 0.05}"
OPS = "DataLoader.Train.dataset.transform_ops"
LIST = "DataLoader.Train.dataset.cls_label_path"


class Runs:
    """Trainings, and others that go on from them in folders of their own."""

    def __init__(self, folder):
        self.folder = folder
        self.data = toys.write_data(folder / "data")
        self.yaml = toys.write_yaml(folder, self.data)
        self.number = 0
        self.latest = None

    def train(self, name, *overrides):
        output = self.folder / name
        self.latest = output
        try:
            Engine(load_config(self.yaml, [f"Global.output_dir={output}", *SETTINGS, *overrides])).train()
        finally:
            stop_logging()
        return output

    def go_on(self, source, *overrides):
        self.number += 1
        return self.train(f"other_{self.number}", f"Global.checkpoints={source}", *overrides)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return Runs(tmp_path_factory.mktemp("changed"))


@pytest.fixture(scope="module")
def trained(runs):
    return runs.train("trained", "EMA={decay: 0.9}")


@pytest.fixture(scope="module")
def trained_by_cosine(runs):
    return runs.train("cosine", COSINE, "Global.eval_during_train=false", "Global.epochs=4", "Global.iter_per_epoch=2")


def told(output):
    """The warnings in a run's log."""
    lines = (output / "train.log").read_text().splitlines()
    return [line.partition(" WARNING: ")[2] for line in lines if " WARNING: " in line]


def changed(output, source):
    """What a run told of changes since a checkpoint."""
    head = f"changed since {source}: "
    return [text[len(head) :] for text in told(output) if text.startswith(head)]


def assert_same_training(output, trained):
    """The best weights are in the folder of the first run, so best begins anew in another; all else is the same."""
    for name in ("model", "optimizer", "ema"):
        file = f"epoch_2/{name}.safetensors"
        assert (output / file).read_bytes() == (trained / file).read_bytes()


def with_config(source, target, change):
    """A checkpoint whose configuration somebody else has written, or left out."""
    with published(target, "checkpoint") as partial:
        shutil.copytree(source, partial, dirs_exist_ok=True, ignore=lambda *_: [MANIFEST])
        state = json.loads((partial / "state.json").read_text())
        change(state)
        (partial / "state.json").write_text(json.dumps(state))
    verify(target)
    return target


EMA = "EMA={decay: 0.9}"
CHANGES = {
    "another width": (["Arch.width=5"], "Arch.width: 8 -> 5"),
    "no batch norm": (["Arch.batch_norm=false"], "Arch.batch_norm: true -> false"),
    "another number of classes": (["Arch.class_num=5"], "Arch.class_num: 4 -> 5"),
    "another architecture": (["Arch={name: TinyDarkNet, class_num: 4}"], "Arch.name: ToyNet -> TinyDarkNet"),
    "another optimizer": (["Optimizer={name: Adam, lr: 0.01}"], "Optimizer.name: Momentum -> Adam"),
    "a rate by epochs": (["Optimizer.lr.by_epoch=true"], "Optimizer.lr.by_epoch: false -> true"),
}


@pytest.mark.promise("F07")
@pytest.mark.parametrize("place", [END, MIDDLE])
@pytest.mark.parametrize("change", CHANGES)
def test_what_cannot_go_on_is_refused_before_anything_is_written(runs, trained, change, place):
    overrides, shown = CHANGES[change]
    source = trained / place
    before = toys.digests(trained)
    with pytest.raises(ConfigError) as caught:
        runs.go_on(source, EMA, *overrides)
    first = next(line for line in str(caught.value).splitlines() if shown in line)
    reason = rule_for(shown.partition(":")[0]).reason
    assert first == f"{source}: {shown}: {reason}"
    assert "start from its weights with Global.pretrained_model" in reason
    assert caught.value.exit_code == 2
    assert {path.name for path in runs.latest.iterdir()} <= {"train.log", ".lock"}
    assert toys.digests(trained) == before


INSIDE = {
    "another seed": (["Global.seed=8"], "Global.seed: 7 -> 8"),
    "another order": (["DataLoader.Train.sampler.shuffle=false"], "DataLoader.Train.sampler.shuffle: true -> false"),
}


@pytest.mark.promise("F07")
@pytest.mark.parametrize("change", INSIDE)
def test_what_would_change_the_rest_of_an_epoch_has_to_wait_for_its_end(runs, trained, change):
    overrides, shown = INSIDE[change]
    with pytest.raises(ConfigError) as caught:
        runs.go_on(trained / MIDDLE, EMA, *overrides)
    assert str(caught.value).startswith(f"{trained / MIDDLE}: {shown}: ")
    assert str(caught.value).endswith("continue from the end of an epoch")
    runs.go_on(trained / END, EMA, *overrides)
    assert changed(runs.latest, trained / END) == [f"{shown} (from here on)"]


TOLD = {
    "more epochs by a rate that does not depend on them": (["Global.epochs=3"], ["Global.epochs: 2 -> 3"]),
    "another rate": (
        ["Optimizer.lr=0.01"],
        ["Optimizer.lr: {name: Piecewise, ", "the learning rate of the next update: 0.05 -> 0.01"],
    ),
    "another boundary of the rate": (["Optimizer.lr.decay_epochs=[4]"], ["Optimizer.lr.decay_epochs: [3] -> [4]"]),
    "another momentum": (["Optimizer.momentum=0.8"], ["Optimizer.momentum: 0.9 -> 0.8"]),
    "less decay": (["Optimizer.regularizer.coeff=0.00001"], ["Optimizer.regularizer.coeff: 0.0001 -> 1e-05"]),
    "another crop": (
        [f"{OPS}.1.RandCropImage.scale=[0.5, 1.0]"],
        [f"{OPS}.1.RandCropImage.scale: [0.6, 1] -> [0.5, 1]"],
    ),
    "no augmentation": (
        [f"{OPS}=[DecodeImage: {{to_rgb: true}}, NormalizeImage: {{order: ''}}]"],
        [f"{OPS}: [DecodeImage, RandCropImage, RandFlipImage, NormalizeImage] -> [DecodeImage, NormalizeImage]"],
    ),
    "another loss": (["Loss.Train.0.CELoss.epsilon=0.2"], ["Loss.Train.0.CELoss.epsilon: 0.1 -> 0.2"]),
    "more dropout": (["Arch.dropout=0.5"], ["Arch.dropout: 0.2 -> 0.5"]),
    "the same images an update, otherwise divided": (
        ["DataLoader.Train.sampler.batch_size=4", "Global.update_freq=2"],
        ["Global.update_freq: 1 -> 2", "DataLoader.Train.sampler.batch_size: 8 -> 4"],
    ),
    "another average": (["EMA.decay=0.8"], ["EMA.decay: 0.9 -> 0.8"]),
    "another measure": (
        ["Metric.Eval=[TopkAcc: {topk: [2]}]"],
        ["Metric.Eval.0.TopkAcc.topk: [1, 2] -> [2]", "the best figure so far was measured otherwise"],
    ),
}


@pytest.mark.promise("F07")
@pytest.mark.parametrize("change", TOLD)
def test_what_may_change_goes_on_and_is_told(runs, trained, change):
    overrides, shown = TOLD[change]
    output = runs.go_on(trained / END, EMA, *overrides)
    lines = changed(runs.latest, trained / END)
    assert len(lines) == len(shown)
    assert all(line.startswith(start) for line, start in zip(lines, shown))
    assert verify(output / "epoch_2")


@pytest.mark.promise("F07")
def test_the_best_figure_begins_anew_with_another_measure(runs, trained):
    state = json.loads((trained / END / "state.json").read_text())
    output = runs.go_on(trained / END, EMA, "Metric.Eval=[TopkAcc: {topk: [2]}]")
    (evaluation,) = toys.records(output, "eval")
    assert evaluation["best"] == evaluation["top2"]
    assert state["best"] is not None


@pytest.mark.promise("F07")
def test_what_changes_no_result_is_silent_and_changes_none(runs, trained):
    settings = ["DataLoader.Train.loader.prefetch_factor=5", "Global.print_batch_step=1", "Infer.batch_size=2"]
    settings += ["Global.save_step_interval=3", "Global.eval_interval=1", "DataLoader.Eval.sampler.batch_size=7"]
    output = runs.go_on(trained / END, EMA, *settings)
    assert changed(runs.latest, trained / END) == []
    assert_same_training(output, trained)


@pytest.mark.promise("F07")
def test_the_same_images_elsewhere_go_on_and_are_told(runs, trained):
    elsewhere = runs.folder / "elsewhere"
    shutil.copytree(runs.data, elsewhere)
    root = "DataLoader.Train.dataset.image_root"
    output = runs.go_on(trained / MIDDLE, EMA, f"{root}={elsewhere}")
    (line,) = changed(runs.latest, trained / MIDDLE)
    assert line.startswith(f"{root}: {runs.data} -> {elsewhere} (taken for the same images elsewhere")
    assert_same_training(output, trained)


@pytest.mark.promise("F07")
def test_more_epochs_by_a_rate_that_stretches_over_them_are_refused_until_the_file_says_how(runs, trained_by_cosine):
    source = trained_by_cosine / "epoch_2"
    common = [COSINE, "Global.eval_during_train=false", "Global.iter_per_epoch=2"]
    with pytest.raises(ConfigError) as caught:
        runs.go_on(source, *common, "Global.epochs=8")
    message = str(caught.value)
    assert message.startswith(f"{source}: Global.epochs: 4 -> 8: the schedule stretches over all epochs")
    assert "-o 'Optimizer.lr={name: Constant, learning_rate: 0.001}'" in message
    # Half of 4 epochs is half of the cosine, half of its height; of 8 it is a quarter: 0.05 (1 + sqrt(1/2)) / 2.
    (line,) = changed(runs.latest, source)
    assert line == "the learning rate of the next update: 0.025 -> 0.0426777"
    runs.go_on(source, *common, "Global.epochs=3", "Optimizer.lr={name: Constant, learning_rate: 0.001}")
    lines = [line.partition(" (")[0] for line in changed(runs.latest, source)]
    rate = "the learning rate of the next update: 0.025 -> 0.001"
    assert lines == [
        "Global.epochs: 4 -> 3",
        "Optimizer.lr.name: Cosine -> Constant",
        "Optimizer.lr.learning_rate: 0.05 -> 0.001",
        rate,
    ]


@pytest.mark.promise("F07")
def test_updates_of_another_size_are_refused(runs, trained):
    with pytest.raises(ConfigError, match="an epoch had 5 updates and has 10 now, so the learning rate would not fit"):
        runs.go_on(trained / END, EMA, "DataLoader.Train.sampler.batch_size=4")


@pytest.mark.promise("F07")
def test_an_average_that_begins_in_the_middle_is_refused_and_one_that_ends_is_told(runs, trained):
    without = runs.train("without", "Global.epochs=1")
    with pytest.raises(StorageError, match="has no averaged weights; remove the EMA section or start anew"):
        runs.go_on(without / END, EMA)
    runs.go_on(trained / END)
    (line,) = changed(runs.latest, trained / END)
    assert line.startswith("EMA: {decay: 0.9} -> null (turned off, the average is left behind")


@pytest.mark.promise("F07")
def test_another_number_of_images_is_told_at_the_end_of_an_epoch_and_refused_within_one(runs, trained):
    longer = runs.folder / "longer.txt"
    lines = (runs.data / "train.txt").read_text()
    longer.write_text(lines + lines.splitlines(keepends=True)[0])
    # 41 images in whole batches of 8 are 5 as before.
    with pytest.raises(DataError, match="the training set had 40 images and has 41 now, so the rest of the epoch"):
        runs.go_on(trained / MIDDLE, EMA, f"{LIST}={longer}")
    runs.go_on(trained / END, EMA, f"{LIST}={longer}")
    assert f"{trained / END}: the training set had 40 images and has 41 now" in told(runs.latest)


@pytest.mark.promise("F07")
def test_a_default_that_a_newer_version_has_brought_goes_on_without_a_word(runs, trained, tmp_path):
    def older(state):
        del state["config"]["Arch"]["batch_norm"], state["config"]["Optimizer"]["use_nesterov"], state["images"]

    source = with_config(trained / END, tmp_path / END, older)
    output = runs.go_on(source, EMA)
    assert changed(runs.latest, source) == []
    assert_same_training(output, trained)


@pytest.mark.promise("F07")
def test_a_key_of_a_newer_version_goes_on_and_is_told(runs, trained, tmp_path):
    source = with_config(trained / END, tmp_path / END, lambda state: state["config"]["Arch"].update(future=[1, 2]))
    runs.go_on(source, EMA)
    assert changed(runs.latest, source) == ["Arch.future: [1, 2] -> (not there) (from here on)"]


@pytest.mark.promise("F07")
def test_a_checkpoint_without_its_configuration_is_compared_by_what_it_has(runs, trained, tmp_path):
    def oldest(state):
        for name in ("config", "images", "learning_rate"):
            del state[name]
        del state["schedule"]["by_epoch"]

    source = with_config(trained / END, tmp_path / END, oldest)
    output = runs.go_on(source, EMA, "Optimizer.momentum=0.9")
    head = (
        f"{source}: was saved by an earlier version, without its configuration; only architecture, optimizer, classes"
    )
    assert any(text.startswith(head) for text in told(runs.latest))
    assert_same_training(output, trained)
    with pytest.raises(ConfigError, match="Arch.class_num: 4 -> 5"):
        runs.go_on(source, EMA, "Arch.class_num=5")
