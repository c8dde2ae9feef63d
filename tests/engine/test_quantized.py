# SPDX-License-Identifier: Apache-2.0
"""Export in whole numbers from a configuration: calibrated on the training set, judged on the evaluation."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import toys

from ppcls.config import load_config
from ppcls.deploy import int8
from ppcls.deploy.bundle import INT8_GRAPH, ONNX_GRAPH, load_bundle
from ppcls.deploy.graph import DeployedGraph
from ppcls.engine import Engine, quantized, sample_images
from ppcls.utils.errors import ConfigError, DataError, ParityError
from ppcls.utils.logger import stop_logging

for package in ("paddle2onnx", "onnxruntime", "ml_dtypes"):
    pytest.importorskip(package)

INT8 = "Global.export_for=[int8]"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, toy_data):
    """A folder with the file, the trained weights and the bundle of `ToyNet`, in whole numbers as well."""
    folder = tmp_path_factory.mktemp("int8")
    config = toys.write_yaml(folder, toy_data)
    Engine(load_config(config)).train()
    Engine(load_config(config, [f"Global.pretrained_model={folder}/output/best_model", INT8])).export()
    stop_logging()
    return folder


@pytest.fixture
def load(folder):
    """The configuration of `folder`, with overrides."""
    return lambda *overrides: load_config(folder / "toy.yaml", overrides)


@pytest.fixture
def bundle(load):
    return load().Global.save_inference_dir


def test_the_bundle_has_both_graphs_and_its_manifest_the_figures_of_both(bundle, load, folder):
    found = load_bundle(bundle)
    assert {ONNX_GRAPH, INT8_GRAPH} <= found.files
    about = found.about["int8"]
    trained = Engine(load(f"Global.pretrained_model={folder}/output/best_model")).eval()
    stop_logging()
    assert about["before"]["top1_correct"] == trained["top1_correct"]
    assert about["before"]["num_samples"] == about["after"]["num_samples"] == trained["num_samples"]
    assert 0 < about["calibrated_on"] <= int8.NUM_IMAGES
    assert about["latency_ms"].keys() == {"onnxruntime", "int8"}
    assert "int8" not in found.about["fastest"]  # only what equals the trained model is chosen without being asked for


def test_evaluation_in_whole_numbers_counts_what_the_manifest_says(bundle, load):
    figures = Engine(load(f"Global.bundle={bundle}", "Global.runtime=int8")).eval()
    stop_logging()
    after = json.loads((load_bundle(bundle).directory / "manifest.json").read_text())["about"]["int8"]["after"]
    assert {name: figures[name] for name in ("top1_correct", "num_samples")} == {
        name: after[name] for name in ("top1_correct", "num_samples")
    }


def test_an_export_that_prepares_images_otherwise_than_the_evaluation_says_so(load, folder, caplog, monkeypatch):
    config = load(f"Global.pretrained_model={folder}/output/best_model")
    transforms = Engine(config).parts.transforms
    monkeypatch.setattr(sample_images.logger, "propagate", True)
    assert len(sample_images.sample_images(config, transforms)) == 24
    assert "otherwise" not in caplog.text
    sample_images.sample_images(config, [transforms[0], lambda image: image[::-1], *transforms[1:]])
    assert "Infer.transforms prepare 24 of 24 images of the evaluation otherwise" in caplog.text


def test_a_loss_of_accuracy_is_refused_unless_allowed_and_what_was_there_stays(bundle, load, folder, monkeypatch):
    monkeypatch.setattr(int8, "LARGEST_FALL", -2.0)  # so that any result is too bad
    monkeypatch.setattr(quantized, "write_int8", lambda directory, images: shutil.copy(graph, directory))
    whole = load_bundle(bundle).directory
    graph, before = whole / INT8_GRAPH, {path.name: path.read_bytes() for path in whole.iterdir()}
    with pytest.raises(ParityError, match=r"^int8: .*--allow-int8-loss$") as refused:
        Engine(load(f"Global.pretrained_model={folder}/output/best_model", INT8)).export()
    stop_logging()
    assert refused.value.exit_code == 7
    assert {path.name: path.read_bytes() for path in whole.iterdir()} == before
    shutil.copytree(whole, folder / "copy")
    monkeypatch.setattr(quantized, "write_int8", lambda directory, images: None)
    figures = quantized.add_int8(load("Global.allow_int8_loss=true"), folder / "copy")
    assert figures["int8"]["after"] == load_bundle(bundle).about["int8"]["after"]


@pytest.mark.parametrize("section", ["Train", "Eval"])
def test_a_missing_data_set_is_said_before_anything_is_done(load, folder, section):
    weights = f"Global.pretrained_model={folder}/output/best_model"
    with pytest.raises(ConfigError, match=f"DataLoader.{section}: the section is missing; int8"):
        Engine(load(weights, INT8, f"DataLoader.{section}=null", "Global.eval_during_train=false")).export()
    stop_logging()


def test_images_for_calibration_are_spread_over_the_training_set(bundle, load, monkeypatch):
    config, found = load(), load_bundle(bundle)
    dataset = config.DataLoader.Train.dataset.source()
    asked = []
    read = type(dataset).read
    monkeypatch.setattr(type(dataset), "read", lambda self, index: asked.append(index) or read(self, index))
    monkeypatch.setattr(quantized, "NUM_IMAGES", 5)
    images = quantized.calibration_images(config, found)
    assert len(images) == 5 and all(found.graph.takes(image) for image in images)
    np.testing.assert_allclose(asked, np.linspace(0, len(dataset) - 1, 5), atol=1)


def test_bad_images_are_left_out_of_the_calibration_and_none_at_all_is_an_error(bundle, load, monkeypatch, caplog):
    config, found = load(), load_bundle(bundle)
    kind = type(config.DataLoader.Train.dataset.source())
    read, num_images = kind.read, min(int8.NUM_IMAGES, len(config.DataLoader.Train.dataset.source()))
    monkeypatch.setattr(kind, "read", lambda self, index: (b"no image", 0) if index == 0 else read(self, index))
    assert len(quantized.calibration_images(config, found)) == num_images - 1
    assert f"1 of {num_images} images are left out of the calibration" in caplog.text
    monkeypatch.setattr(kind, "read", lambda self, index: (b"no image", 0))
    with pytest.raises(DataError, match="int8 needs images of the training set"):
        quantized.calibration_images(config, found)


def test_a_bundle_that_normalizes_by_itself_is_evaluated_too(load, folder):
    weights, folded = f"Global.pretrained_model={folder}/output/best_model", folder / "folded"
    trained = Engine(load(weights)).eval()
    Engine(load(weights, "Global.fold_preprocess=true", f"Global.save_inference_dir={folded}")).export()
    assert load_bundle(folded).graph.dtype == "uint8"
    figures = Engine(load(f"Global.bundle={folded}")).eval()
    stop_logging()
    assert figures["top1_correct"] == trained["top1_correct"]
    assert figures["loss"] == pytest.approx(trained["loss"], rel=1e-4)
    found = load_bundle(folded)
    wrong = replace(found, graph=replace(found.graph, dtype="float32"))
    with pytest.raises(ConfigError, match="end in uint8 images, but the model takes float32; add NormalizeImage"):
        _ = quantized.UnpublishedParts(load(), DeployedGraph(wrong, "paddle")).eval_loader
