# SPDX-License-Identifier: Apache-2.0
"""NaN and infinity in input, loss, gradients, statistics or weights: caught at that update, whatever the policy."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
import toys
from safetensors.numpy import load_file
from stop_at import StopAt
from toy_poison import BAD_IMAGES, Poison

from ppcls.engine import Engine
from ppcls.engine.callbacks import Callback
from ppcls.engine.optimizer_state import optimizer_tensors
from ppcls.engine.snapshot import weights_of
from ppcls.utils.cli import run
from ppcls.utils.errors import NumericsError

pytestmark = pytest.mark.promise("F21")

# 40 images in batches of 4 are 10 batches an epoch.
SETTINGS = ["Global.epochs=3", "Global.print_batch_step=1", "DataLoader.Train.sampler.batch_size=4"]
SETTINGS += ["EMA={decay: 0.9}", "Arch.dropout=0.3", "Global.save_step_interval=3"]
LARGE_LOSS = "Loss.Train=[CELoss: {weight: 10000}]"
PLACE = (2, 5)
NAN, INF = float("nan"), float("inf")


class Remember(Callback):
    """Keeps a copy of all that an update changes, as it was after the last batch that was made."""

    def __init__(self, parts):
        self.parts = parts
        self.kept = {}

    def on_step_end(self, state, output):
        self.kept = everything(self.parts)


def everything(parts):
    """Weights, statistics, moments and averages as arrays."""
    tensors = {
        "model": weights_of(parts.model),
        "moments": optimizer_tensors(parts.optimizer, parts.model),
        "average": weights_of(parts.ema.model) if parts.ema else {},
    }
    return {(kind, name): array.copy() for kind, arrays in tensors.items() for name, array in arrays.items()}


def assert_equal(one, other):
    assert one.keys() == other.keys()
    assert [name for name in one if not np.array_equal(one[name], other[name])] == []


@pytest.fixture
def poison(monkeypatch):
    return lambda where, value=NAN, places=(PLACE,): Poison(where, value, places).put_in(monkeypatch.setattr)


@pytest.fixture
def stopped(toy_config, tmp_path):
    """Train until what is not finite ends it; gives the error, the parts and what they were after the batch before."""

    def go(*overrides):
        parts = (engine := Engine(toy_config(f"Global.output_dir={tmp_path}/run", *SETTINGS, *overrides))).parts
        remember = Remember(parts)
        parts.callbacks.append(remember)
        with pytest.raises(NumericsError) as caught:
            engine.train()
        return str(caught.value), parts, remember.kept

    return go


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("where", ["input", "loss", "gradient", "statistics"])
def test_it_is_caught_at_its_update_and_leaves_no_trace(where, value, poison, stopped):
    poison(where, value)
    text, parts, before = stopped()
    assert text.startswith("epoch 2, batch 5: ")
    assert_equal(everything(parts), before)
    assert (parts.output_dir / "epoch_2_step_12").is_dir()
    assert not (parts.output_dir / "epoch_2_step_15").exists()


@pytest.mark.parametrize("where", ["input", "gradient", "statistics"])
def test_within_an_accumulation_too(where, poison, stopped):
    poison(where)
    text, parts, before = stopped("Global.update_freq=2")
    assert text.startswith("epoch 2, batch 5: ")  # the update follows batch 6
    now = everything(parts)
    # what the callback saw after batch 5 had the statistics of that batch, so these are compared with batch 4 below
    changed = {name for name in now if not np.array_equal(now[name], before[name])}
    assert all(kind == "model" and name.endswith(("_mean", "_variance")) for kind, name in changed)
    assert all(np.isfinite(array).all() for array in now.values())


def test_a_net_without_batch_norm_whose_relu_hides_it(poison, stopped):
    # On a CPU relu(nan) is 0, so the loss is finite; what the first layer would learn is not.
    poison("input")
    text, parts, before = stopped("Arch.batch_norm=false", "Arch.dropout=0")
    assert text.startswith("epoch 2, batch 5: a gradient is not finite at learning rate 0.05; first not finite: ")
    assert_equal(everything(parts), before)


def test_the_message_names_layer_and_images_and_the_batch_is_in_a_file(poison, stopped, toy_data):
    poison("input")
    text, parts, _ = stopped()
    folder = parts.output_dir / "non_finite" / "epoch_2_batch_5"
    report = json.loads((folder / "report.json").read_text())
    batch = load_file(folder / "batch.safetensors")
    bad = [report["samples"][number] for number in BAD_IMAGES]
    assert f"first not finite: features.0 (output), images {', '.join(bad)}; see {folder}; try a smaller" in text
    assert report["images"] == batch["numbers"][:2].tolist() == BAD_IMAGES
    assert batch["images"].shape == (4, 3, 16, 16)
    # Each sample is named with the label that the list file gives it.
    listed = dict(line.rsplit(" ", 1) for line in (toy_data / "train.txt").read_text().splitlines())
    assert report["labels"] == [int(listed[str(Path(name).relative_to(toy_data))]) for name in report["samples"]]
    assert batch["labels"].tolist() == [report["labels"][number] for number in batch["numbers"]]


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("loss", "the loss is nan at learning rate 0.05; first not finite: the loss loss; see"),
        ("gradient", "a gradient is not finite .* first not finite: classifier (gradient of its output)"),
        ("statistics", "a running statistic is not finite .* first not finite: the statistics features.1._variance"),
    ],
)
def test_the_message_says_what_was_not_finite(where, told, poison, stopped):
    poison(where)
    text, *_ = stopped()
    pattern = told.replace("(", r"\(").replace(")", r"\)")
    assert re.search(pattern, text), text


def test_what_does_not_come_again_is_told_as_it_was(poison, stopped):
    spoiled, compute = poison("gradient"), Poison.spoil

    def once(*arguments):
        output = compute(spoiled, *arguments)
        spoiled.places = ()
        return output

    spoiled.spoil = once
    text, *_ = stopped()
    assert "first not finite: the gradient of features.0.weight, features.1.weight, features.1.bias and 5 more" in text


def test_left_out_or_rolled_back_comes_to_the_same_weights(poison, train):
    poison("gradient", places=[PLACE, (2, 9)])
    skipped = train("skipped", *SETTINGS, "Global.on_non_finite=skip")
    rolled_back = train("rolled_back", *SETTINGS, "Global.on_non_finite=rollback")
    names = ("model.safetensors", "optimizer.safetensors", "ema.safetensors")
    for name in names:
        assert (skipped / "epoch_3" / name).read_bytes() == (rolled_back / "epoch_3" / name).read_bytes()
    states = [json.loads((output / "epoch_3" / "state.json").read_text()) for output in (skipped, rolled_back)]
    assert [(state["step"], state["non_finite"], state["left_out"]) for state in states] == [
        (30, 2, []),
        (30, 2, [15, 19]),
    ]
    assert toys.records(skipped, "epoch") != []
    losses = [[record["loss"] for record in toys.records(output, "epoch")] for output in (skipped, rolled_back)]
    assert losses[0] == losses[1]
    assert np.isfinite(losses).all()


@pytest.mark.parametrize("where", ["input", "loss", "statistics"])
def test_an_update_that_is_left_out_changes_nothing_but_the_count(where, poison, toy_config, tmp_path):
    spoiled = poison(where)
    settings = [*SETTINGS, "Global.on_non_finite=skip", f"Global.output_dir={tmp_path}/run"]
    parts = (engine := Engine(toy_config(*settings))).parts
    seen = {}

    class Watch(Callback):
        def on_step_end(self, state, output):
            seen[state.epoch, state.batch] = (everything(parts), state.step, output is None)

    parts.callbacks.append(Watch())
    engine.train()
    assert_equal(seen[2, 4][0], seen[2, 5][0])
    assert [seen[place][1:] for place in ((2, 4), (2, 5), (2, 6))] == [(14, False), (15, True), (16, False)]
    assert spoiled.calls.count(PLACE) == 2  # once more to see where it began


@pytest.mark.parametrize("policy", ["skip", "rollback"])
@pytest.mark.parametrize("until", [(2, 5), (2, 7), (3, 2)])
def test_a_run_that_is_cut_off_after_it_goes_on_to_the_bit(policy, until, poison, train):
    poison("input")
    settings = [*SETTINGS, f"Global.on_non_finite={policy}"]
    whole = train("whole", *settings)
    train("parts", *settings, callbacks=[StopAt(*until)])
    parts = train("parts", *settings, "Global.checkpoints=auto")
    assert toys.digests(parts / "epoch_3") == toys.digests(whole / "epoch_3")


def test_no_more_updates_are_left_out_than_allowed(poison, stopped):
    poison("loss", places=[(2, 2), (2, 5), (3, 1)])
    text, parts, before = stopped("Global.on_non_finite=skip", "Global.max_non_finite=2")
    assert text.startswith("epoch 3, batch 1: the loss is nan")
    assert text.endswith("Global.max_non_finite allows 2 such updates, and 2 were before")
    assert_equal(everything(parts), before)


def test_without_a_checkpoint_there_is_nothing_to_go_back_to(poison, stopped):
    poison("loss", places=[(1, 2)])
    text, parts, before = stopped("Global.on_non_finite=rollback")
    assert "there is no checkpoint yet to go back to; save some with save_step_interval" in text
    assert_equal(everything(parts), before)


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_an_update_that_itself_makes_weights_not_finite_ends_the_run_unsaved(policy, stopped):
    rate = "Optimizer.lr={name: Piecewise, learning_rate: 1, decay_epochs: [1], values: [5.0e-6, 3.0e+38]}"
    text, parts, _ = stopped(rate, LARGE_LOSS, f"Global.on_non_finite={policy}")
    assert text.startswith("epoch 2, batch 1: the update at learning rate 3e+38 has made weights not finite: ")
    assert [path.name for path in parts.output_dir.glob("epoch_2*")] == []
    saved = load_file(parts.output_dir / "epoch_1" / "model.safetensors")
    assert all(np.isfinite(array).all() for array in saved.values())


def test_an_update_that_itself_makes_weights_not_finite_is_rolled_back(train):
    rate = "Optimizer.lr={name: Piecewise, learning_rate: 1, decay_epochs: [1, 2], values: [5.0e-6, 3.0e+38, 5.0e-6]}"
    settings = [*SETTINGS, rate, LARGE_LOSS, "Global.on_non_finite=rollback"]
    output = train("run", *settings)
    # every update of the second epoch was left out in the end
    state = json.loads((output / "epoch_3" / "state.json").read_text())
    assert (state["left_out"], state["non_finite"]) == (list(range(11, 21)), 10)
    before, after = (load_file(output / name / "model.safetensors") for name in ("epoch_1", "epoch_2"))
    assert_equal(before, after)


def test_weights_that_are_not_finite_are_never_saved(toy_config, tmp_path):
    engine = Engine(toy_config(*SETTINGS, f"Global.output_dir={tmp_path}/run"))
    parts = engine.parts

    class Spoil(Callback):
        def on_step_end(self, state, output):
            if (state.epoch, state.batch) == (2, 3):
                moment = next(iter(parts.optimizer._accumulators["velocity"].values()))
                moment[0] = paddle.to_tensor(INF)

    parts.callbacks.insert(0, Spoil())
    with pytest.raises(NumericsError, match="has made weights not finite|in the optimizer is not finite"):
        engine.train()
    assert not (tmp_path / "run" / "epoch_2_step_15").exists()


@pytest.mark.parametrize(("iterations", "place"), [(2, "epoch 1, batch 2"), (1, "evaluation")])
def test_paddles_own_check_is_said_in_a_line(iterations, place, stopped, monkeypatch):
    # Paddle 3.3.1 checks outputs of batch norm, too, that evaluation does not write: whatever lies in that memory.
    monkeypatch.setattr("ppcls.engine.report.count_macs", lambda model, shape: 0)
    paddle.set_flags({"FLAGS_check_nan_inf": True})
    try:
        text, *_ = stopped("Optimizer.lr=1.0e+37", f"Global.iter_per_epoch={iterations}")
    finally:
        paddle.set_flags({"FLAGS_check_nan_inf": False})
    assert text.startswith(f"{place}: FLAGS_check_nan_inf: (PreconditionNotMet) There are NAN or INF")
    assert "\n" not in text


def test_the_tool_exits_with_4(poison, stopped, toy_config, capsys, tmp_path):
    poison("loss")
    with pytest.raises(SystemExit) as ended:
        run(lambda: Engine(toy_config(*SETTINGS, f"Global.output_dir={tmp_path}/tool")).train())
    assert ended.value.code == 4
    assert capsys.readouterr().err.splitlines()[-1].startswith("epoch 2, batch 5: the loss is nan")
    assert toys.records(tmp_path / "tool", "exit")[-1]["exit_code"] == 4


@pytest.fixture(scope="module")
def together(tmp_path_factory, toy_data):
    """The folder of `not_finite_together`, what its two processes told, and their logs."""
    folder = tmp_path_factory.mktemp("together")
    config, log = toys.write_yaml(folder, toy_data), folder / "log"
    launcher = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--log_dir", str(log)]
    script = Path(toys.__file__).with_name("not_finite_together.py")
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PADDLE_", "CUDA_"))}
    path = f"{script.parents[2]}:{script.parent}"
    done = subprocess.run(
        [*launcher, str(script), str(config), str(folder)],
        env={**clean, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    logs = [(log / f"workerlog.{rank}").read_text() for rank in range(2)]
    assert done.returncode != 0  # the last training stops
    return folder, [json.loads((folder / f"told_{rank}.json").read_text()) for rank in range(2)], logs


@pytest.mark.parametrize("where", ["input", "loss", "gradient", "statistics"])
def test_in_one_of_two_processes_it_is_left_out_by_both(where, together, counted):
    folder, told, _ = together
    counted(2)
    for each in told:
        places = {(epoch, batch): rest for epoch, batch, *rest in each[f"{where}_skip"][:-1]}
        # step, left out, unchanged
        assert [places[2, batch] for batch in (1, 2, 3)] == [[6, False, False], [7, True, True], [8, False, False]]
    for name in ("model.safetensors", "optimizer.safetensors", "ema.safetensors"):
        skipped, rolled_back = (folder / f"{where}_{policy}" / "epoch_2" / name for policy in ("skip", "rollback"))
        assert skipped.read_bytes() == rolled_back.read_bytes()
    assert json.loads((folder / f"{where}_rollback" / "epoch_2" / "state.json").read_text())["left_out"] == [7]
    # The process that has seen it writes it, and the first one tells.
    names = {path.name for path in (folder / f"{where}_skip" / "non_finite").iterdir()}
    assert names == {"epoch_2_batch_2_rank_1"}
    log = (folder / f"{where}_skip" / "train.log").read_text()
    assert re.search("WARNING: process 1: epoch 2, batch 2: .*; the update is left out \\(1 of at most 10\\)", log)


def test_in_one_of_two_processes_it_stops_both_in_one_line(together):
    folder, told, logs = together
    for each, log in zip(told, logs):
        assert each["stop"][-1] == ["end", True, 0]
        assert each["stop"][-2][:3] == [2, 1, 6]
        assert re.search("^process 1: epoch 2, batch 2: .*; first not finite: features.0 .*; try a smaller", log, re.M)
    assert not (folder / "stop" / "epoch_2_step_9").exists()


@pytest.mark.promise("F22")
def test_little_memory_in_one_of_two_processes_makes_pieces_in_both(together):
    folder, _, _ = together
    for name in ("model.safetensors", "optimizer.safetensors", "ema.safetensors"):
        found, asked = (folder / run / "epoch_2" / name for run in ("little_memory", "small_pieces"))
        assert found.read_bytes() == asked.read_bytes()
    state = json.loads((folder / "little_memory" / "epoch_2" / "state.json").read_text())
    assert (state["step"], state["pieces"]) == (10, {"asked": None, "size": 2})
    log = (folder / "little_memory" / "train.log").read_text()
    assert "out of memory with 4 images at once (process 1: (ResourceExhausted) " in log
