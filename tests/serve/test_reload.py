# SPDX-License-Identifier: Apache-2.0
"""A new bundle answers when it is good; a bad one changes nothing."""

import gc
import logging
import os
import shutil
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import served

toy_bundle = pytest.importorskip("toy_bundle")
RED = toy_bundle.picture(0)
OTHER = ("rouge", "vert", "bleu")


@pytest.fixture
def own(bundle, tmp_path):
    """A bundle that may be replaced."""
    return toy_bundle.write_bundle(tmp_path / "own")


def flip(directory):
    path = directory / "model.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def not_finite(directory):
    toy_bundle.write_bundle(directory, gain=float("nan"))


def of_another_format(directory):
    from ppcls.deploy.bundle import KIND
    from ppcls.utils.storage import published

    kept = {path.name: path.read_bytes() for path in directory.iterdir() if path.name != "manifest.json"}
    with published(directory, KIND, about={"format": 99, "fastest": ["onnxruntime"]}) as partial:
        for name, content in kept.items():
            (partial / name).write_bytes(content)


def fewer_labels(directory):
    toy_bundle.write_bundle(directory, num_classes=4)


def another_size(directory):
    toy_bundle.write_bundle(directory, resize=16)


def test_a_new_bundle_answers_and_the_old_one_is_let_go(start, own):
    server = start(own)
    before = server.ask(path="/metadata").said["bundle_sha256"]
    old = weakref.ref(server.model)
    del server.model
    toy_bundle.write_bundle(own, OTHER)
    assert server.ask(RED).classes == ["red"]
    server.run(server.server.reloader.reload())
    assert server.ask(RED).classes == ["rouge"]
    assert server.ask(path="/metadata").said["bundle_sha256"] != before
    assert server.metric("ppcls_reloads_total", result="swapped") == 1
    gc.collect()
    assert old() is None


def test_what_the_old_bundle_has_begun_it_answers(start, own):
    server = start(own)
    gate = served.Gate(server.model)
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(server.ask, RED) for _ in range(2)]
        assert gate.entered.wait(served.PATIENCE)
        server.wait_for(lambda running: running.service.num_taken == 2)
        toy_bundle.write_bundle(own, OTHER)
        server.run(server.server.reloader.reload())
        gate.opened.set()
        assert [each.result().classes for each in waiting] == [["red"]] * 2
    assert server.ask(RED).classes == ["rouge"]


def errors_of(caplog):
    """A training before this test may have turned lines of a lower level on."""
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("damage", [flip, not_finite, of_another_format, fewer_labels, another_size, shutil.rmtree])
def test_a_bad_bundle_is_told_in_one_line_and_the_old_one_answers(start, own, damage, caplog):
    server = start(own)
    damage(own)
    with caplog.at_level(logging.ERROR):
        server.run(server.server.reloader.reload())
    (record,) = errors_of(caplog)
    assert record.getMessage().startswith(f"the bundle is not reloaded, the one before answers on: {own}")
    assert "\n" not in record.getMessage()
    assert server.ask(RED).classes == ["red"]
    assert server.metric("ppcls_reloads_total", result="refused") == 1


def test_a_directory_that_is_watched_is_read_when_its_manifest_is_another(start, own, caplog):
    server = start(own, reload_seconds=0.02)
    with caplog.at_level(logging.ERROR):
        not_finite(own)
        server.wait_for(lambda running: running.service.metrics.reloads.labels("refused")._value.get() == 1)
        toy_bundle.write_bundle(own, OTHER)
        server.wait_for(lambda running: running.service.metrics.reloads.labels("swapped")._value.get() == 1)
    assert server.ask(RED).classes == ["rouge"]
    assert len(errors_of(caplog)) == 1, "the bad one was read once, not again and again"


def test_a_link_that_is_turned_to_another_bundle_is_followed(start, bundle, own, tmp_path):
    toy_bundle.write_bundle(own, OTHER)
    (tmp_path / "current").symlink_to(bundle)
    server = start(tmp_path / "current", reload_seconds=0.02)
    assert server.ask(RED).classes == ["red"]
    (tmp_path / "next").symlink_to(own)
    os.replace(tmp_path / "next", tmp_path / "current")
    server.wait_for(lambda running: running.service.metrics.reloads.labels("swapped")._value.get() == 1)
    assert server.ask(RED).classes == ["rouge"]


def test_a_bundle_that_is_replaced_while_it_is_read_is_read_again(own, monkeypatch):
    from ppcls.deploy import classifier
    from ppcls.deploy.bundle import manifest_sha256
    from ppcls.serve import model

    graph, opened = classifier.DeployedGraph, []

    def replacing(*arguments):
        made = graph(*arguments)
        if not opened:
            toy_bundle.write_bundle(own, OTHER)
        opened.append(made)
        return made

    monkeypatch.setattr(classifier, "DeployedGraph", replacing)
    loaded = model.ServedModel(own, "onnxruntime", "cpu", 1, 2)
    assert len(opened) == 2
    assert loaded.sha256 == manifest_sha256(own)
    assert loaded.metadata()["classes"] == list(OTHER)
