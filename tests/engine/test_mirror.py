# SPDX-License-Identifier: Apache-2.0
"""A run whose outputs are mirrored to a real S3 server, and what goes on from there."""

import os
import shutil
import threading
import time
from pathlib import Path

import pytest
import toys
from object_storage import SECRET

from ppcls.engine import mirror
from ppcls.engine.callbacks import Callback
from ppcls.engine.mirror import Mirror
from ppcls.engine.restore import restore
from ppcls.engine.trainer import TrainState
from ppcls.utils.errors import ConfigError, StorageError
from ppcls.utils.storage import published, verify

URL = "s3://bucket/run"
OUTPUT = f"Global.output_url={URL}"


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(mirror, "FIRST_WAIT_SECONDS", 0.05)
    monkeypatch.setattr(mirror, "NUM_ATTEMPTS", 2)
    monkeypatch.setattr(mirror, "FINAL_WAIT_SECONDS", 300.0)


def names(s3):
    """The first part of what is stored below the run's address."""
    return {key.split("/")[1] for key in s3.keys("run/")}


def fetched(s3, folder, prefix="run/"):
    for key in s3.keys(prefix):
        path = folder / key[len(prefix) :]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(s3.get(key))
    return folder


def write_checkpoint(directory, epoch, content=b"weights"):
    with published(directory / f"epoch_{epoch}", "checkpoint", owns_name=True) as partial:
        (partial / "model.safetensors").write_bytes(content)


def wait_for(condition):
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


class At(Callback):
    """Calls a function at the end of an epoch."""

    def __init__(self, **functions):
        self.functions = functions

    def on_epoch_end(self, state):
        self.functions.get(f"epoch_{state.epoch}", lambda: None)()


def test_a_mirrored_run_is_whole_and_can_be_continued_elsewhere(s3, toy_engine, tmp_path):
    toy_engine(OUTPUT, "Global.epochs=3", "Global.save_interval=0").train()
    output = tmp_path / "output"
    log = (output / "train.log").read_text()
    records = {"config.yaml", "environment.json", "train.log", "train.jsonl"}
    assert names(s3) == {"epoch_2", "epoch_3", "best_model", *records}
    assert "[Mirror] everything is in s3://bucket/run, after 0 failed attempts" in log
    copy = fetched(s3, tmp_path / "copy")
    for name in ("epoch_2", "epoch_3", "best_model"):
        verify(copy / name)
        assert toys.digests(copy / name) == toys.digests(output / name)
    assert (copy / "train.jsonl").read_bytes() == (output / "train.jsonl").read_bytes()
    # The log's last lines but those of the mirror itself: what comes after the training is in it.
    assert f"model    {output}/best_model" in (copy / "train.log").read_text()
    assert not (output / ".mirror").exists()
    assert SECRET not in log

    straight = toy_engine("Global.epochs=4", f"Global.output_dir={tmp_path}/straight").train()
    elsewhere = tmp_path / "elsewhere"
    goes_on = ("Global.checkpoints=auto", "Global.epochs=4", f"Global.output_dir={elsewhere}", "Global.save_interval=0")
    continued = toy_engine(OUTPUT, *goes_on).train()
    assert (continued.step, continued.best, continued.best_epoch) == (straight.step, straight.best, straight.best_epoch)
    final = "epoch_4/model.safetensors"
    assert toys.digests(elsewhere)[final] == toys.digests(tmp_path / "straight")[final]
    # One run, one record: both machines are in it, and what neither would keep is gone.
    assert [record["epoch"] for record in toys.records(elsewhere, "epoch")] == [1, 2, 3, 4]
    assert (elsewhere / "train.log").read_text().startswith((copy / "train.log").read_text())
    assert names(s3) == {"epoch_3", "epoch_4", "best_model", *records}


def test_weights_and_checkpoints_are_read_from_the_copy(s3, toy_engine, tmp_path):
    toy_engine(OUTPUT, "Global.epochs=1").train()
    expected = toy_engine(f"Global.pretrained_model={tmp_path}/output/best_model").eval()
    assert toy_engine(f"Global.pretrained_model={URL}/best_model").eval() == expected
    assert toy_engine(f"Global.pretrained_model={URL}/epoch_1/model.safetensors").eval() == expected
    assert toy_engine(f"Arch.pretrained={URL}/epoch_1/model.safetensors").eval() == expected
    other = f"Global.output_dir={tmp_path}/other"
    assert toy_engine(f"Global.checkpoints={URL}/epoch_1", other, "Global.epochs=2").train().epoch == 2


def test_checkpoints_in_the_middle_of_an_epoch_are_mirrored_too(s3, toy_engine, tmp_path):
    engine = toy_engine(OUTPUT, "Global.epochs=1", "Global.save_step_interval=2", "Global.keep_checkpoint_max=9")
    mirrored = []

    class AfterEachStep(Callback):
        def on_step_end(self, state, output):
            engine.parts.checkpointer.settle()
            wait_for(lambda: not engine.parts.mirror.is_behind)
            mirrored.append({name for name in names(s3) if name.startswith("epoch")})

    engine.parts.callbacks.append(AfterEachStep())
    engine.train()
    second, fourth = "epoch_1_step_2", "epoch_1_step_4"
    assert mirrored == [set(), {second}, {second}, {second, fourth}, {second, fourth}]
    assert {second, fourth, "epoch_1"} <= names(s3)


def test_a_server_that_goes_down_never_ends_the_training_and_is_caught_up_with(s3, toy_engine, tmp_path):
    engine = toy_engine(OUTPUT, "Global.epochs=4")
    down = threading.Event()
    work = engine.parts.mirror._try

    def until_given_up(snapshot):
        work(snapshot)
        if engine.parts.mirror.num_failures:
            down.set()

    engine.parts.mirror._try = until_given_up
    # The upload of epoch 2 has failed before the server is back for epoch 3.
    engine.parts.callbacks.insert(0, At(epoch_2=s3.stop, epoch_3=lambda: (down.wait(300), s3.start())))
    assert engine.train().epoch == 4
    num_failures = engine.parts.mirror.num_failures
    log = (tmp_path / "output" / "train.log").read_text()
    assert num_failures >= 1
    assert log.count(f"[Mirror] {URL}: no connection") == num_failures
    assert f"everything is in {URL}, after {num_failures} failed attempt" in log
    copy = fetched(s3, tmp_path / "copy")
    for epoch in range(1, 5):
        verify(copy / f"epoch_{epoch}")


def test_what_could_not_be_mirrored_is_named_at_the_end(s3, toy_engine, tmp_path):
    engine = toy_engine(OUTPUT, "Global.epochs=2")

    def stop():
        engine.parts.checkpointer.settle()
        wait_for(lambda: not engine.parts.mirror.is_behind)
        s3.stop()

    engine.parts.callbacks.insert(0, At(epoch_2=stop))
    try:
        assert engine.train().epoch == 2
    finally:
        s3.start()
    [line] = [line for line in (tmp_path / "output" / "train.log").read_text().splitlines() if "lacks" in line]
    assert "epoch_2" in line and "epoch_1," not in line and line.endswith(f"copy them from {tmp_path}/output")
    assert (tmp_path / "output" / "epoch_2").is_dir()


def test_the_end_waits_for_the_last_upload_only_so_long(s3, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(mirror, "FINAL_WAIT_SECONDS", 0.2)
    write_checkpoint(tmp_path, 1)
    release = threading.Event()
    with Mirror(tmp_path, URL) as running:
        monkeypatch.setattr(running, "_upload", lambda snapshot: release.wait(300))
        running.on_train_start(TrainState(epoch=1))
    assert "lacks what is newest of: epoch_1, train.log" in caplog.text
    release.set()
    running._thread.join(300)


def test_a_manifest_comes_last_and_goes_first(s3, tmp_path):
    write_checkpoint(tmp_path, 1, b"one")
    with Mirror(tmp_path, URL) as running:
        running.on_train_start(TrainState(epoch=1))
    order = [request for request in s3.requests if request.startswith("PUT /bucket/run/epoch_1/")]
    assert [place.rpartition("/")[2] for place in order] == ["model.safetensors", "manifest.json"]
    s3.requests.clear()
    write_checkpoint(tmp_path, 1, b"two")
    with Mirror(tmp_path, URL) as running:
        running.on_train_start(TrainState(epoch=1))
    order = [request for request in s3.requests if "/epoch_1/" in request and not request.startswith(("GET", "HEAD"))]
    assert order == [
        *("DELETE /bucket/run/epoch_1/manifest.json", "DELETE /bucket/run/epoch_1/model.safetensors"),
        *("PUT /bucket/run/epoch_1/model.safetensors", "PUT /bucket/run/epoch_1/manifest.json"),
    ]
    assert s3.get("run/epoch_1/model.safetensors") == b"two"


def test_what_is_there_already_is_not_uploaded_again(s3, tmp_path):
    write_checkpoint(tmp_path, 1)
    for _ in range(2):
        s3.requests.clear()
        with Mirror(tmp_path, URL) as running:
            running.on_train_start(TrainState(epoch=1))
            running.renew()
    assert not [request for request in s3.requests if request.startswith("PUT") and "epoch_1" in request]


@pytest.mark.parametrize("has_links", [True, False])
def test_a_checkpoint_removed_while_it_waits_for_its_upload_harms_nothing(s3, tmp_path, monkeypatch, has_links):
    if not has_links:

        def refused(*arguments):
            raise OSError("no hard links here")

        monkeypatch.setattr(mirror.os, "link", refused)
    go_on, has_begun = threading.Event(), threading.Event()
    running = Mirror(tmp_path, URL)
    upload = running._upload
    monkeypatch.setattr(running, "_upload", lambda snapshot: (has_begun.set(), go_on.wait(300), upload(snapshot)))
    with running:
        running.on_train_start(TrainState())
        write_checkpoint(tmp_path, 1)
        write_checkpoint(tmp_path, 2)
        running.renew()
        has_begun.wait(300)
        shutil.rmtree(tmp_path / "epoch_1")
        go_on.set()
    assert running.num_failures == 0
    assert names(s3) == ({"epoch_2"})


def test_checkpoints_that_are_removed_here_are_removed_there(s3, tmp_path):
    with Mirror(tmp_path, URL) as running:
        running.on_train_start(TrainState())
        for epoch in (1, 2, 3):
            write_checkpoint(tmp_path, epoch)
            running.renew()
        shutil.rmtree(tmp_path / "epoch_2")
        write_checkpoint(tmp_path, 4)
        s3.put("run/notes.txt", b"of a person")
        s3.put("run/epoch_5/model.safetensors", b"half of what another machine began")
    assert names(s3) == {"epoch_1", "epoch_3", "epoch_4", "epoch_5", "notes.txt"}


def test_two_runs_are_not_mixed(s3, toy_engine, tmp_path):
    toy_engine(OUTPUT, "Global.epochs=1").train()
    before = {key: s3.get(key) for key in s3.keys("run/")}
    with pytest.raises(StorageError, match="has epoch_1 of a run that came further.*checkpoints: auto") as caught:
        toy_engine(OUTPUT, "Global.epochs=1", f"Global.output_dir={tmp_path}/other").train()
    assert "\n" not in str(caught.value)
    assert before == {key: s3.get(key) for key in s3.keys("run/")}
    assert (tmp_path / "output" / "epoch_1").is_dir()


def test_a_failed_training_leaves_its_reason_in_the_copy(s3, toy_engine, tmp_path):
    def fail():
        raise RuntimeError("the reason of it all")

    engine = toy_engine(OUTPUT, "Global.epochs=2")
    engine.parts.callbacks.insert(0, At(epoch_2=fail))
    with pytest.raises(RuntimeError):
        engine.train()
    assert "the reason of it all" in s3.get("run/train.log").decode()
    assert "epoch_1" in names(s3)


def test_restoring_takes_the_newest_that_verifies(s3, tmp_path, caplog):
    for epoch in (1, 2, 10):
        write_checkpoint(tmp_path / "far", epoch, b"%d" % epoch)
    s3.put_folder("run", tmp_path / "far")
    s3.put("run/epoch_10/model.safetensors", b"xx")
    s3.put("run/epoch_11/model.safetensors", b"no manifest")
    (tmp_path / "here").mkdir()
    restore(tmp_path / "here", URL)
    assert (tmp_path / "here" / "epoch_2" / "model.safetensors").read_bytes() == b"2"
    assert not (tmp_path / "here" / "epoch_10").exists() and not (tmp_path / "here" / ".restored").exists()
    assert "going on without it" in caplog.text


def test_restoring_brings_the_records_without_half_a_line_and_the_environment(s3, tmp_path):
    write_checkpoint(tmp_path / "far", 1)
    s3.put_folder("run", tmp_path / "far")
    s3.put("run/train.jsonl", b'{"event": "train"}\n{"event": "tr')
    s3.put("run/train.log", b"first\nhal")
    s3.put("run/environment.json", b'{"python": "3.9.0"}')
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "train.log").write_text("now\n")
    restore(tmp_path / "here", URL)
    assert (tmp_path / "here" / "train.jsonl").read_text() == '{"event": "train"}\n'
    assert (tmp_path / "here" / "train.log").read_text() == "first\nnow\n"
    assert (tmp_path / "here" / "environment.json").read_text() == '{"python": "3.9.0"}'


def test_a_restoring_that_is_killed_at_its_last_step_is_done_again_whole(s3, tmp_path, monkeypatch):
    write_checkpoint(tmp_path / "far", 1)
    shutil.copytree(tmp_path / "far" / "epoch_1", tmp_path / "far" / "best_model")
    s3.put_folder("run", tmp_path / "far")
    s3.put("run/train.log", b"first\n")
    here = tmp_path / "here"
    here.mkdir()
    replace = os.replace

    def killed(source, target):
        if Path(target).name == "epoch_1":
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", killed)
        restore(here, URL)
    assert (here / "best_model").is_dir() and not (here / "epoch_1").exists()
    restore(here, URL)
    assert (
        toys.digests(here / "epoch_1")
        == toys.digests(tmp_path / "far" / "epoch_1")
        == toys.digests(here / "best_model")
    )
    assert (here / "train.log").read_text() == "first\n"


def test_restoring_never_begins_anew_when_the_copy_cannot_be_used(s3, tmp_path):
    write_checkpoint(tmp_path / "far", 1)
    s3.put_folder("run", tmp_path / "far")
    s3.put("run/epoch_1/model.safetensors", b"xx")
    (tmp_path / "here").mkdir()
    with pytest.raises(StorageError, match="none of its 1 checkpoints can be used"):
        restore(tmp_path / "here", URL)
    s3.refuse_everybody()
    with pytest.raises(StorageError, match="access is refused"):
        restore(tmp_path / "here", URL)


def test_restoring_leaves_a_run_that_is_here_alone(s3, tmp_path):
    write_checkpoint(tmp_path / "far", 7)
    s3.put_folder("run", tmp_path / "far")
    write_checkpoint(tmp_path / "here", 1)
    restore(tmp_path / "here", URL)
    assert not (tmp_path / "here" / "epoch_7").exists()


def test_auto_begins_anew_where_neither_place_has_a_checkpoint(s3, toy_engine):
    assert toy_engine(OUTPUT, "Global.checkpoints=auto", "Global.epochs=1").train().epoch == 1


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3://no-such-bucket/run", "there is no such thing"),
        ("https://example.com/run", "object storage is wanted here"),
        ("s3://key:hidden@bucket/run", "credentials do not belong in an address"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_the_training(s3, toy_engine, tmp_path, url, words):
    with pytest.raises((StorageError, ConfigError), match=words) as caught:
        toy_engine(f"Global.output_url={url}").train()
    assert "\n" not in str(caught.value) and "hidden" not in str(caught.value)
    assert not list((tmp_path / "output").glob("epoch_*"))


def test_a_folder_is_no_output_url(toy_config):
    with pytest.raises(ConfigError, match="for a folder write output_dir"):
        toy_config("Global.output_url=./copy")


def test_a_data_set_is_trained_on_from_object_storage(s3, toy_engine, toy_data, tmp_path):
    shutil.make_archive(str(tmp_path / "data"), "zip", toy_data.parent, toy_data.name)
    s3.put("sets/data.zip", tmp_path / "data.zip")
    s3.put("sets/train.txt", toy_data / "train.txt")
    s3.put_folder("sets/folder", toy_data)
    dataset = "DataLoader.{}.dataset.{}={}".format
    inside = f"s3://bucket/sets/data.zip!/{toy_data.name}"
    remote = toy_engine(
        "Global.epochs=1",
        f"Global.cache_dir={tmp_path}/chosen",
        f"Global.output_dir={tmp_path}/remote",
        dataset("Train", "image_root", inside),
        dataset("Train", "cls_label_path", "s3://bucket/sets/train.txt"),
        dataset("Eval", "image_root", "s3://bucket/sets/folder"),
        dataset("Eval", "cls_label_path", f"{inside}/val.txt"),
    ).train()
    assert remote.metrics == toy_engine("Global.epochs=1").train().metrics
    assert any((tmp_path / "chosen").iterdir()) and not (tmp_path / "cache").exists()
    assert s3.downloads("sets/data.zip") == 1
