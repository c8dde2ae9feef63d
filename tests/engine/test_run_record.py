# SPDX-License-Identifier: Apache-2.0
"""What a run leaves about where it ran and why it ended."""

import errno
import json
import signal
import time

import paddle
import pytest
import toys

from ppcls import __version__
from ppcls.engine.callbacks import Callback
from ppcls.engine.run_record import RunRecord, missing_end, reason_of
from ppcls.engine.trainer import TrainState
from ppcls.utils.errors import ConfigError, DataError, NumericsError, StorageError

SECRET = "hunter2"


class Raises(Callback):
    """Ends a training after a batch."""

    def __init__(self, error):
        self.error = error

    def on_step_end(self, state, output):
        if self.error is None:
            state.stop = True
        else:
            raise self.error


def ends(output):
    return [(record["reason"], record["exit_code"]) for record in toys.records(output, "exit")]


def environment_of(output):
    return json.loads((output / "environment.json").read_text())


def test_a_training_that_ends_says_where_it_ran_and_that_it_finished(toy_engine, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["tools/train.py", "-o", f"Global.output_url=s3://key:{SECRET}@bucket"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    toy_engine().train()
    output = tmp_path / "output"
    assert SECRET not in (output / "environment.json").read_text()
    found = environment_of(output)
    assert (found["device"], found["processes"]) == (paddle.get_device(), 1)
    assert found["command"] == ["tools/train.py", "-o", "Global.output_url=s3://bucket"]
    assert found["variables"]["OMP_NUM_THREADS"] == "1"
    (last,) = toys.records(output, "exit")
    last.pop("time")
    assert last == {"event": "exit", "reason": "finished", "exit_code": 0, "epoch": 2, "batch": 0, "step": 10}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (None, ("stopped", 0)),
        (KeyboardInterrupt(), ("stopped by signal 2", 130)),
        (SystemExit(128 + signal.SIGTERM), ("stopped by signal 15", 143)),
        (NumericsError("the loss is nan\nmore"), ("NumericsError: the loss is nan", 4)),
        (RuntimeError(f"no s3://u:{SECRET}@host/x"), ("RuntimeError: no s3://host/x", 1)),
        (OSError(errno.ENOSPC, "No space left on device"), ("OSError: [Errno 28] No space left on device", 5)),
    ],
)
def test_a_training_that_is_ended_says_by_what(toy_engine, tmp_path, error, expected):
    engine = toy_engine()
    engine.parts.callbacks.append(Raises(error))
    if error is None:
        engine.train()
    else:
        with pytest.raises(type(error)):
            engine.train()
    assert ends(tmp_path / "output") == [expected]
    (last,) = toys.records(tmp_path / "output", "exit")
    assert (last["epoch"], last["batch"], last["step"]) == (1, 1, 1)


@pytest.mark.parametrize(
    ("error", "reason"),
    [(ConfigError(["a", "b"]), "ConfigError: a"), (DataError(""), "DataError"), (ValueError(" "), "ValueError:  ")],
)
def test_a_reason_is_one_line(error, reason):
    assert reason_of(error) == reason


def test_a_run_that_goes_on_keeps_the_ends_before_and_says_what_has_changed(toy_engine, tmp_path):
    output = tmp_path / "output"
    toy_engine("Global.epochs=1").train()
    assert "not as at the last start" not in (output / "train.log").read_text()
    path = output / "environment.json"
    path.write_text(path.read_text().replace(f'"ppcls": "{__version__}"', '"ppcls": "0.0"'))
    toy_engine("Global.epochs=2", "Global.checkpoints=auto").train()
    assert ends(output) == [("finished", 0)] * 2
    assert "not as at the last start of this run: ppcls: 0.0 -> " in (output / "train.log").read_text()
    assert environment_of(output)["ppcls"] != "0.0"


def test_a_new_run_sets_the_records_of_the_one_before_aside(toy_engine, tmp_path):
    output = tmp_path / "output"
    toy_engine("Global.epochs=1").train()
    before = (output / "environment.json").read_bytes()
    toy_engine("Global.epochs=1").train()
    assert ends(output) == ends(output / "earlier_1") == [("finished", 0)]
    assert (output / "earlier_1" / "environment.json").read_bytes() == before


def test_a_run_that_cannot_start_leaves_the_records_of_the_one_before(toy_engine, tmp_path):
    output = tmp_path / "output"
    toy_engine("Global.epochs=1").train()
    before = toys.digests(output)
    with pytest.raises(DataError):
        toy_engine("Arch.class_num=3").train()
    after = toys.digests(output)
    assert all(after[name] == before[name] for name in ("environment.json", "train.jsonl"))


@pytest.mark.parametrize("text", ["", '{"python": ', "[]"])
def test_a_record_that_was_cut_off_is_no_obstacle(tmp_path, text):
    (tmp_path / "environment.json").write_text(text)
    with RunRecord(tmp_path, 1) as record:
        record.start(TrainState(), "cpu")
    assert environment_of(tmp_path)["device"] == "cpu"


def started(output):
    """As if the run had been killed: what it logged, without its end."""
    path = output / "train.jsonl"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if '"exit"' not in line))
    return time.strftime("%Y/%m/%d %H:%M:%S", time.localtime(environment_of(output)["time"]))


def test_a_start_that_ended_without_a_word_is_told_at_the_next_one(toy_engine, tmp_path):
    output = tmp_path / "output"
    toy_engine("Global.epochs=1").train()
    when = started(output)
    toy_engine("Global.epochs=2", "Global.checkpoints=auto").train()
    log = (output / "train.log").read_text()
    told = f"the last start here ({when}) ended without a word, as after kill -9 or a loss of power, in epoch 1, after "
    assert log.count(told + "step 5 at least") == 1
    toy_engine("Global.epochs=2", "Global.checkpoints=auto").train()
    assert (output / "train.log").read_text().count("without a word") == 1


def test_that_is_told_to_a_run_that_begins_anew_too(toy_engine, tmp_path):
    output = tmp_path / "output"
    toy_engine("Global.epochs=1").train()
    started(output)
    toy_engine("Global.epochs=1").train()
    assert "ended without a word" in (output / "train.log").read_text()


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([], "before it had logged anything"),
        ([{"time": 90.0, "event": "exit", "epoch": 1, "step": 5}], "before it had logged anything"),
        ([{"time": 101.0, "event": "train", "epoch": 3, "step": 7}], "in epoch 3, after step 7 at least"),
        (
            [{"time": 101.0, "event": "train", "epoch": 3, "step": 7}, "half a"],
            "in epoch 3, after step 7 at least",
        ),
        ([{"time": 101.0, "event": "exit", "epoch": 3, "step": 7}, "half a"], None),
    ],
)
def test_where_a_start_without_an_end_was(tmp_path, lines, told):
    (tmp_path / "environment.json").write_text('{"time": 100.0}')
    text = "".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines)
    (tmp_path / "train.jsonl").write_text(text)
    said = missing_end(tmp_path)
    assert said is None if told is None else said.endswith(told)


def test_a_directory_without_a_run_has_nothing_to_tell(tmp_path):
    assert missing_end(tmp_path) is None


def test_an_end_that_cannot_be_written_does_not_hide_the_error(tmp_path, caplog):
    (tmp_path / "train.jsonl").mkdir()
    with pytest.raises(StorageError, match="^the reason$"), RunRecord(tmp_path, 1) as record:
        record.start(TrainState(), "cpu")
        raise StorageError("the reason")
    assert "train.jsonl: the end of the run cannot be written" in caplog.text
