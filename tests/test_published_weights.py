# SPDX-License-Identifier: Apache-2.0
"""Published ImageNet weights give their known answers to real images: trained form, and every exported one."""

import os
import runpy
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import paddle
import pytest

from ppcls.config import load_config
from ppcls.data.images import transform_image
from ppcls.engine import Engine
from ppcls.utils.logger import stop_logging

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs" / "ImageNet" / "EfficientNetLite" / "EfficientNetLite0.yaml"
# What the model that the weights were published with, in PyTorch, answers: images, right, right among the first five.
COUNTS = {"train": (150, 135, 148), "val": (50, 45, 49)}
VOLCANO = "val/n09472597/n09472597_volcano.JPEG"
VOLCANO_LOGITS = [-1.3711, -0.6271, -0.5330, -0.9348]
MAX_IMAGES_APART = 2
MAX_IMAGES_APART_IN_INT8 = 4
ONNX_PACKAGES = ("paddle2onnx", "onnx", "onnxruntime", "ml_dtypes")


@pytest.fixture(scope="module")
def shared():
    """The folder with real images and weights (``PPCLS_DATA``, or ``shared/data`` beside the repository)."""
    path = Path(os.environ.get("PPCLS_DATA") or ROOT.parent / "shared" / "data")
    if not (path / "efficientnet_lite0_imagenet.safetensors").is_file():
        pytest.skip("no real images and weights; set PPCLS_DATA to their folder")
    return path


@pytest.fixture(scope="module")
def images(shared, tmp_path_factory):
    """200 images of ImageNet with their two lists."""
    folder = tmp_path_factory.mktemp("imagenet")
    with zipfile.ZipFile(shared / "imagenet-sample-200.zip") as archive:
        archive.extractall(folder)
    return folder / "ILSVRC2012"


@pytest.fixture(scope="module")
def weights(shared, tmp_path_factory):
    """The published weights, rewritten by the tool."""
    target = tmp_path_factory.mktemp("weights") / "lite0.safetensors"
    source = shared / "efficientnet_lite0_imagenet.safetensors"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(sys, "argv", ["convert_weights", "--arch", "EfficientNetLite0", str(source), str(target)])
        runpy.run_path(str(ROOT / "tools" / "convert_weights.py"), run_name="__main__")
    assert end.value.code == 0
    return target


@pytest.fixture(scope="module")
def load(images, tmp_path_factory):
    """The configuration for one of the two lists, with overrides."""
    output = tmp_path_factory.mktemp("output")

    def configuration(name, *overrides):
        return load_config(
            CONFIG,
            [
                f"Global.output_dir={output}",
                f"DataLoader.Train.dataset.image_root={images}",
                f"DataLoader.Train.dataset.cls_label_path={images}/train_list.txt",
                f"DataLoader.Eval.dataset.image_root={images}",
                f"DataLoader.Eval.dataset.cls_label_path={images}/{name}_list.txt",
                "DataLoader.Eval.sampler.batch_size=25",
                "DataLoader.Eval.loader.num_workers=0",
                f"Infer.infer_imgs={images}/val",
                *overrides,
            ],
        )

    return configuration


def assert_counts(figures, name):
    num_images, *expected = COUNTS[name]
    assert figures["num_samples"] == num_images
    found = [round(figures[key] * num_images) for key in ("top1", "top5")]
    np.testing.assert_allclose(found, expected, atol=MAX_IMAGES_APART)


def require_onnx():
    for package in ONNX_PACKAGES:
        pytest.importorskip(package)


def test_logits_are_the_published_models(load, weights, images):
    parts = Engine(load("val", f"Global.pretrained_model={weights}")).parts
    image = transform_image((images / VOLCANO).read_bytes(), parts.transforms, VOLCANO)
    parts.model.eval()
    with paddle.no_grad():
        logits = parts.model(paddle.to_tensor(image[None])).numpy()
    np.testing.assert_allclose(logits[0, :4], VOLCANO_LOGITS, atol=2e-4)


@pytest.mark.parametrize("name", COUNTS)
def test_accuracy_is_the_published_models(load, weights, name):
    assert_counts(Engine(load(name, f"Global.pretrained_model={weights}")).eval(), name)
    stop_logging()


@pytest.fixture(scope="module")
def bundle(load, weights, tmp_path_factory):
    """The exported model in every form; without ONNX where it is not installed."""
    target = tmp_path_factory.mktemp("export") / "bundle"
    onnx = all(map(find_spec, ONNX_PACKAGES))
    # One image of so few is more than the half point that may be lost.
    overrides = f"Global.export_for=[{'int8' if onnx else 'paddle'}]", "Global.allow_int8_loss=true"
    Engine(
        load("val", f"Global.pretrained_model={weights}", f"Global.save_inference_dir={target}", *overrides)
    ).export()
    stop_logging()
    return target


@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("runtime", ["paddle", "paddle_onednn", "onnxruntime"])
def test_accuracy_of_the_exported_model_is_the_same_in_every_engine(load, bundle, runtime, name):
    if runtime == "onnxruntime":
        require_onnx()
    assert_counts(Engine(load(name, f"Global.bundle={bundle}", f"Global.runtime={runtime}")).eval(), name)
    stop_logging()


@pytest.mark.slow
def test_accuracy_in_whole_numbers_is_within_four_images_of_all(load, bundle):
    require_onnx()
    right = 0
    for name in COUNTS:
        right += Engine(load(name, f"Global.bundle={bundle}", "Global.runtime=int8")).eval()["top1_correct"]
        stop_logging()
    assert abs(right - sum(count for _, count, _ in COUNTS.values())) <= MAX_IMAGES_APART_IN_INT8
