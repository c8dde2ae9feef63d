# SPDX-License-Identifier: Apache-2.0
"""A bundle answers by itself: as the trained model does, in every engine, and without Paddle."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import toys

from ppcls.config import load_config
from ppcls.data.images import find_images
from ppcls.deploy import classifier
from ppcls.deploy.bundle import DESCRIPTION, GRAPH, KIND, ONNX_GRAPH
from ppcls.deploy.classifier import Classifier
from ppcls.deploy.runtime import Predictor
from ppcls.engine import Engine
from ppcls.utils.errors import ConfigError, DataError, StorageError
from ppcls.utils.logger import stop_logging
from ppcls.utils.manifest import MANIFEST
from ppcls.utils.storage import published

pytest.importorskip("paddle2onnx")
pytest.importorskip("onnxruntime")

ROOT = Path(__file__).resolve().parents[2]
WITHOUT_PADDLE = """
import runpy, sys
for name in ("paddle", "ppcls.engine", "ppcls.arch", "ppcls.loss", "ppcls.optimizer"):
    sys.modules[name] = None  # importing it fails
sys.argv = sys.argv[1:]
sys.path.insert(0, sys.argv.pop(0))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def infer_without_paddle(bundle, images, runtime):
    command = ["tools/infer.py", "--bundle", str(bundle), "--runtime", runtime, str(images)]
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_PADDLE, str(ROOT), *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def exported(tmp_path_factory, toy_data):
    """A bundle with an ONNX graph, its images, and what the trained model says to them."""
    folder = tmp_path_factory.mktemp("classifier")
    config = toys.write_yaml(folder, toy_data)
    Engine(load_config(config)).train()
    weights = f"Global.pretrained_model={folder}/output/best_model"
    bundle = Engine(load_config(config, [weights, "Global.export_for=[onnxruntime]"])).export()
    expected = list(Engine(load_config(config, [weights])).infer())
    stop_logging()
    return bundle, toy_data / "images" / "2", expected


def assert_same(results, expected):
    assert len(results) == len(expected) > 1
    for result, wanted in zip(results, expected):
        assert {**result, "scores": None} == {**wanted, "scores": None}
        assert result["scores"] == pytest.approx(wanted["scores"], abs=2e-5)


@pytest.mark.parametrize("runtime", ["paddle", "paddle_onednn", "onnxruntime"])
@pytest.mark.parametrize("batch_size", [1, 5])
def test_a_bundle_answers_as_the_trained_model_does(exported, runtime, batch_size):
    bundle, images, expected = exported
    assert_same(list(Classifier(bundle, runtime, threads=1)(find_images(str(images)), batch_size)), expected)


def test_with_onnx_runtime_neither_paddle_nor_training_code_is_imported(exported):
    bundle, images, expected = exported
    finished = infer_without_paddle(bundle, images, "onnxruntime")
    assert finished.returncode == 0, finished.stderr
    assert_same([json.loads(line) for line in finished.stdout.splitlines()], expected)
    assert finished.stderr == ""


def test_without_paddle_its_own_engine_is_refused_in_one_line(exported):
    bundle, images, _ = exported
    finished = infer_without_paddle(bundle, images, "paddle")
    assert finished.returncode == 2
    assert finished.stderr == "Global.runtime: Paddle is not installed; pip install paddlepaddle\n"


@pytest.mark.parametrize(("runtime", "file"), [("onnxruntime", ONNX_GRAPH), ("paddle", GRAPH)])
def test_a_graph_that_its_engine_cannot_load_is_told_of_in_one_line(exported, tmp_path, runtime, file):
    shutil.copytree(exported[0], tmp_path / "bundle")
    (tmp_path / "bundle" / file).write_text("no graph\n")
    with pytest.raises(StorageError, match=rf"{file}: .* cannot load it \(.*\); export it again") as raised:
        Predictor(tmp_path / "bundle", runtime)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("runtime", ["paddle", "onnxruntime"])
@pytest.mark.parametrize("device", ["gpu", "npu:3", "sofa"])
def test_a_device_that_is_not_there_is_refused(exported, runtime, device):
    with pytest.raises(ConfigError, match=f"^Global.device: .*'{device}'"):
        Classifier(exported[0], runtime, device)


def test_an_engine_whose_graph_is_not_there_is_refused(exported):
    with pytest.raises(ConfigError, match=r"holds no model_int8.onnx; export it with --int8"):
        Classifier(exported[0], "int8")


def test_a_directory_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(StorageError, match="there is no such directory"):
        Classifier(tmp_path / "none")


def test_a_bundle_that_is_replaced_while_it_is_read_answers_with_one_export(exported, tmp_path, monkeypatch):
    bundle, images, expected = exported
    place = tmp_path / "bundle"
    shutil.copytree(bundle, place)
    build, calls = classifier.DeployedGraph, []

    def replaced(*arguments):
        calls.append(1)
        if len(calls) == 1:
            with published(place, KIND) as partial:
                for path in bundle.iterdir():
                    if path.name != MANIFEST:
                        text = path.read_bytes()
                        is_description = path.name == DESCRIPTION
                        (partial / path.name).write_bytes(text.replace(b"night", b"abyss") if is_description else text)
        return build(*arguments)

    monkeypatch.setattr(classifier, "DeployedGraph", replaced)
    assert b"night" in (bundle / DESCRIPTION).read_bytes()
    assert Classifier(place, "paddle", threads=1).bundle.labels[0] == "abyss"
    assert len(calls) == 2


def test_probabilities_of_the_graph_are_those_of_its_logits(exported):
    classifier = Classifier(exported[0], "onnxruntime")
    assert classifier.bundle.graph.softmax
    paths = find_images(str(exported[1]))
    images = np.stack([classifier.prepare(Path(path).read_bytes(), path) for path in paths])
    assert_same(classifier.answer(images, paths), classifier.postprocess(classifier.graph(images), paths))


def test_a_postprocessing_that_takes_only_logits_gets_them(exported):
    graph = Classifier(exported[0], "onnxruntime").graph

    def only_logits(logits, names):
        return []

    assert graph.answered_by(only_logits) == (graph, only_logits)


def test_images_of_another_shape_or_type_are_refused_also_behind_good_ones(exported):
    graph = Classifier(exported[0], "onnxruntime").graph
    good = np.zeros([2, *graph.bundle.graph.image_shape], np.float32)
    expected = graph(good)
    for bad in (good[:, :, 1:], good.astype(np.float64), good[:, :1]):
        with pytest.raises(DataError, match="takes float32 images of"):
            graph(bad)
        np.testing.assert_array_equal(graph(good), expected)


def test_the_cores_are_left_to_the_engine(exported):
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(2)
        Classifier(exported[0], "onnxruntime")
        assert cv2.getNumThreads() == 1
    finally:
        cv2.setNumThreads(before)
