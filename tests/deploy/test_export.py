# SPDX-License-Identifier: Apache-2.0
"""An exported model answers as the trained one, or is not published."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import paddle
import pytest
import toys
import yaml
from paddle import nn

from ppcls.arch.densenet import DenseNet
from ppcls.arch.output import logits_of
from ppcls.data.images import load_image, transform_image
from ppcls.data.transforms.decode import DecodeImage
from ppcls.data.transforms.geometry import ResizeImage
from ppcls.data.transforms.tensor import NormalizeImage, ToCHWImage
from ppcls.deploy import parity as parity_of
from ppcls.deploy.bundle import KIND, load_bundle
from ppcls.deploy.cases import cases
from ppcls.deploy.classifier import Classifier
from ppcls.deploy.export import Wanted, export_model
from ppcls.deploy.runtime import Predictor
from ppcls.utils.errors import ConfigError, ParityError, StorageError
from ppcls.utils.storage import published, verify

DESCRIPTION = {
    "Global": {"model_name": "net"},
    "PreProcess": {
        "transform_ops": [
            {"DecodeImage": None},
            {"ResizeImage": {"size": 20}},
            {"NormalizeImage": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "order": ""}},
            {"ToCHWImage": None},
        ]
    },
    "PostProcess": {"Topk": {"topk": 2, "label_list": ["夜", "grass", "sea: deep", "fire"]}},
}


def transforms():
    return [
        DecodeImage(),
        ResizeImage(size=20),
        NormalizeImage(mean=[0.5, 0.4, 0.3], std=[0.2, 0.3, 0.4], order=""),
        ToCHWImage(),
    ]


@pytest.fixture(scope="module")
def paths(toy_data):
    return [str(toy_data / "images" / str(label) / f"{label:03}.png") for label in range(4)]


@pytest.fixture(scope="module")
def net():
    paddle.seed(1)
    return nn.Sequential(
        nn.Conv2D(3, 4, 3, stride=2),
        nn.BatchNorm2D(4),
        nn.Hardswish(),
        nn.Dropout(0.5),
        nn.AdaptiveAvgPool2D(2),
        nn.Flatten(),
        nn.Linear(16, 4),
    )


@pytest.fixture
def exported(tmp_path, paths):
    stored = [Path(path).read_bytes() for path in paths]

    def run(model, images=stored, softmax=True, shape=(3, 20, 20), name="inference", ops=None, **wanted):
        directory = tmp_path / name
        wanted = Wanted(shape, softmax, **wanted)
        parity = export_model(model, directory, wanted, ops or transforms(), DESCRIPTION, images)
        return directory, parity

    run.folder = tmp_path
    return run


@pytest.fixture
def answered_here(monkeypatch):
    """Replace the fresh process by a function of the model's inputs, which a test decides."""

    def use(answer):
        def answers(directory, images, runtimes):
            inputs = [
                transform_image(image, transforms(), "image") if isinstance(image, bytes) else image for image in images
            ]
            outputs = {case: answer(batch) for case, batch in cases(inputs).items()}
            return {runtime: parity_of.Answers(outputs, "a test", 1.0) for runtime in runtimes}

        monkeypatch.setattr(parity_of, "answers_of_fresh_process", answers)

    return use


def logits(model, paths):
    model.eval()
    with paddle.no_grad():
        return model(paddle.to_tensor(np.stack([load_image(path, transforms()) for path in paths]))).numpy()


def softmax(values):
    exp = np.exp(values.astype(np.float64) - values.max(1, keepdims=True))
    return exp / exp.sum(1, keepdims=True)


def test_files_preprocessing_and_answers_in_batches_are_those_of_the_model(exported, net, paths):
    net.train()
    directory, parity = exported(net)
    wanted = {"manifest.json", "inference.json", "inference.pdiparams", "inference.yml"}
    assert {path.name for path in directory.iterdir()} == wanted
    assert set(verify(directory)["files"]) == wanted - {"manifest.json"}
    written = yaml.safe_load((directory / "inference.yml").read_text(encoding="utf-8"))
    graph = {"image_shape": [3, 20, 20], "class_num": 4, "softmax": True}
    assert written == {**DESCRIPTION, "Global": {"model_name": "net", **graph}}

    bundle = load_bundle(directory)
    assert bundle.about["parity"] == parity
    assert bundle.about["versions"]["paddlepaddle"] == paddle.__version__
    assert sorted(bundle.about["fastest"]) == ["paddle", "paddle_onednn"]
    read = bundle.build_transforms()
    images = [load_image(path, read) for path in paths]
    for path, image in zip(paths, images):
        assert np.array_equal(image, load_image(path, transforms()))
    expected = logits(net, paths)
    inputs = np.stack(images)[[0, 1, 2, 3, 0, 1, 2, 3]] * np.float32(50)
    assert parity["largest_logit"] == pytest.approx(np.abs(logits_of_array(net, inputs)).max(), rel=1e-5)
    assert (parity["images"], parity["real_images"]) == (4, True)
    scaled = ["batch of 8, times 0.01", "batch of 8, times 50"]
    assert parity["cases"] == ["batch of 1", "batch of 3", "batch of 8", *scaled, "images 1 to 4"]
    engines = {name: figures["same_top1"] for name, figures in parity["engines"].items()}
    assert engines == {"paddle": 1.0, "paddle_onednn": 1.0}
    predictor = Predictor(directory)
    for size in (1, 3):
        np.testing.assert_allclose(predictor(np.stack(images[:size])), softmax(expected)[:size], atol=1e-6)
    # and the trained model can still be used and trained
    # Where in memory the images lie decides how Paddle adds up: the last bit may differ.
    np.testing.assert_allclose(logits(net, paths), expected, rtol=1e-5, atol=1e-6)
    net.train()
    net(paddle.ones([2, 3, 20, 20])).sum().backward()
    assert net[0].weight.grad is not None
    net.clear_gradients()


def test_without_softmax_the_graph_answers_with_logits(exported, net, paths):
    directory, _ = exported(net, softmax=False)
    image = np.stack([load_image(path, transforms()) for path in paths])
    np.testing.assert_allclose(Predictor(directory)(image), logits(net, paths), atol=1e-5)
    assert load_bundle(directory).graph.softmax is False


def test_without_images_noise_is_compared_and_the_description_says_so(exported, answered_here, net):
    answered_here(lambda images: softmax(logits_of_array(net, images)))
    _, parity = exported(net, images=[])
    assert parity["real_images"] is False
    assert parity["images"] >= 1


def logits_of_array(model, image):
    with paddle.no_grad():
        return logits_of(model(paddle.to_tensor(image))).numpy()


def test_a_small_densenet_is_exported(exported):
    paddle.seed(2)
    model = DenseNet((2, 2), stem_channels=8, growth_rate=4, dropout=0.2, class_num=4)
    directory, parity = exported(model)
    assert 0 < parity["engines"]["paddle"]["largest_share_of_limit"] <= 1
    assert json.loads((directory / "inference.json").read_text())["base_code"]["magic"] == "pir"


def test_a_difference_beyond_the_tolerance_publishes_nothing(exported, answered_here, net, tmp_path):
    def tampered(images):
        values = logits_of_array(net, images)
        values[0, 0] += 3e-5 * np.abs(values).max()
        return values

    answered_here(tampered)
    with pytest.raises(
        ParityError, match="does not answer as the trained model does(.|\n)*  <-(.|\n)*nothing was published"
    ) as caught:
        exported(net, softmax=False)
    assert caught.value.exit_code == 7
    assert list(tmp_path.iterdir()) == []


def test_a_difference_within_the_tolerance_is_published(exported, answered_here, net):
    def nearly(images):
        values = logits_of_array(net, images)
        values[0, 0] += 0.5e-5 * np.abs(values).max()
        return values

    answered_here(nearly)
    directory, parity = exported(net, softmax=False)
    assert 0.4 < parity["engines"]["paddle"]["largest_share_of_limit"] < 0.6
    verify(directory)


def test_another_first_class_publishes_nothing(exported, answered_here, net, tmp_path):
    answered_here(lambda images: np.eye(4, dtype=np.float32)[[0] * len(images)])
    with pytest.raises(ParityError):
        exported(net)
    assert list(tmp_path.iterdir()) == []


def test_an_older_export_stays_as_it_was_when_a_new_one_is_refused(exported, answered_here, net):
    answered_here(lambda images: logits_of_array(net, images))
    directory, _ = exported(net, softmax=False)
    before = toys.digests(directory)
    answered_here(lambda images: np.zeros([len(images), 4], np.float32))
    with pytest.raises(ParityError):
        exported(net, softmax=False)
    assert toys.digests(directory) == before
    assert [path.name for path in directory.parent.iterdir()] == ["inference"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_answers_that_are_not_finite_publish_nothing(exported, answered_here, net, value, tmp_path):
    answered_here(lambda images: np.full([len(images), 4], value, np.float32))
    with pytest.raises(ParityError, match="does not answer as the trained model does"):
        exported(net)
    assert list(tmp_path.iterdir()) == []


def test_a_trained_model_that_is_not_finite_is_not_published(exported, tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(1200, 4))
    model[1].bias.set_value(np.full(4, np.nan, np.float32))
    with pytest.raises(ParityError, match="trained model's own answers are not finite"):
        exported(model)
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_does_not_run_in_a_fresh_process_is_refused_with_the_reason(exported, net, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ParityError, match="does not run in a fresh process .exit code 1"):
        exported(net)
    assert list(tmp_path.iterdir()) == []


def test_transforms_that_end_in_another_shape_than_the_graph_has_are_refused(exported, net):
    with pytest.raises(ConfigError, match=r"image_shape: \[3, 32, 32\], but Infer.transforms end in .*\[3, 20, 20\]"):
        exported(net, shape=(3, 32, 32))


def test_a_folder_of_somebody_elses_files_is_not_touched(exported, net, tmp_path):
    (tmp_path / "inference").mkdir()
    (tmp_path / "inference" / "thesis.txt").write_text("years of work")
    with pytest.raises(StorageError, match="holds thesis.txt, which would be lost"):
        exported(net)
    assert (tmp_path / "inference" / "thesis.txt").read_text() == "years of work"


@pytest.mark.promise("F34")
@pytest.mark.parametrize("shape", [(3, 20, 20), (3, -1, -1)], ids=["fixed size", "free size"])
@pytest.mark.parametrize("folded", [False, True], ids=["floats", "bytes"])
def test_the_size_of_images_can_be_free_and_the_graph_can_normalize(exported, paths, shape, folded):
    pytest.importorskip("paddle2onnx")
    paddle.seed(3)
    net = nn.Sequential(nn.Conv2D(3, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2D(1), nn.Flatten(), nn.Linear(4, 4))
    directory, parity = exported(net, shape=shape, onnx=True, fold_preprocess=folded)
    assert list(parity["engines"]) == ["paddle", "paddle_onednn", "onnxruntime"]
    assert ("another size" in parity["cases"]) == (shape[1] < 0)
    bundle = load_bundle(directory)
    expected = softmax(logits(net, paths))
    images = np.stack([load_image(path, bundle.build_transforms(), bundle.graph.dtype) for path in paths])
    assert images.shape == ((4, 20, 20, 3) if folded else (4, 3, 20, 20))
    for runtime in parity["engines"]:
        np.testing.assert_allclose(Predictor(directory, runtime)(images), expected, atol=1e-6)
    answers = list(Classifier(directory)(paths))
    assert [answer["class_ids"][0] for answer in answers] == expected.argmax(1).tolist()


def test_an_operator_that_needs_a_fixed_size_is_named(exported, net):
    pytest.importorskip("paddle2onnx")
    with pytest.raises(
        ParityError, match=r"cannot be converted to ONNX \(.*pool2d\] Adaptive only support static input"
    ):
        exported(net, shape=(3, -1, -1), onnx=True)


def test_a_free_size_takes_images_of_several_sizes(exported, net, paths):
    ops = [DecodeImage(), NormalizeImage(mean=[0.5, 0.4, 0.3], std=[0.2, 0.3, 0.4], order=""), ToCHWImage()]
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, [size, 20, 3], np.uint8) for size in (20, 31, 20)]
    without_resize = [{key: value for key, value in op.items()} for op in DESCRIPTION["PreProcess"]["transform_ops"]]
    del without_resize[1]
    description = {**DESCRIPTION, "PreProcess": {"transform_ops": without_resize}}
    parity = export_model(net, exported.folder / "free", Wanted((3, -1, -1)), ops, description, images)
    assert [case for case in parity["cases"] if case.startswith("images")] == ["images 1 to 2", "images 3 to 3"]
    with pytest.raises(ConfigError, match=r"image_shape: \[3, 20, 20\], but Infer.transforms end in .*\[3, 31, 20\]"):
        export_model(net, exported.folder / "fixed", Wanted((3, 20, 20)), ops, description, images)


@pytest.mark.parametrize("ops", [[DecodeImage()], [NormalizeImage(order="chw"), ToCHWImage()], [ToCHWImage()]])
def test_only_a_normalization_at_the_end_can_be_folded(exported, net, ops):
    with pytest.raises(ConfigError, match="^Global.fold_preprocess: Infer.transforms have to end in NormalizeImage"):
        exported(net, ops=ops, fold_preprocess=True)


def test_an_engine_that_differs_is_unfit_where_that_is_allowed(exported, net, monkeypatch):
    ask = parity_of.answers_of_fresh_process

    def worse(directory, images, runtimes):
        answers = ask(directory, images, runtimes)
        outputs = {case: given[:, ::-1] for case, given in answers["paddle_onednn"].outputs.items()}
        return {**answers, "paddle_onednn": parity_of.Answers(outputs, "a test", 0.0)}

    monkeypatch.setattr(parity_of, "answers_of_fresh_process", worse)
    with pytest.raises(ParityError, match="^paddle_onednn: the exported graph does not answer as the trained model"):
        exported(net)
    directory, parity = exported(net, allow_mismatch=["paddle_onednn"])
    assert list(parity["engines"]) == ["paddle"]
    bundle = load_bundle(directory)
    assert bundle.about["fastest"] == ["paddle"]
    assert bundle.runtime("auto") == "paddle"
    with pytest.raises(ParityError, match="paddle_onednn does not answer as the trained model does, as the export"):
        bundle.runtime("paddle_onednn")


def test_where_only_an_unfit_engine_is_installed_auto_is_refused_too(exported, net):
    bundle = load_bundle(exported(net)[0])
    unfit = ["paddle", "paddle_onednn"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ppcls.deploy.bundle.find_spec", lambda name: name == "paddle" or None)
        fit = replace(bundle, about={**bundle.about, "fastest": ["onnxruntime"], "unfit": unfit})
        with pytest.raises(ConfigError, match="^Global.runtime: onnxruntime, but .* holds no model.onnx"):
            fit.runtime("auto")
        none = replace(bundle, about={**bundle.about, "fastest": [], "unfit": unfit})
        with pytest.raises(ParityError, match="^Global.runtime: paddle does not answer as the trained model does"):
            none.runtime("auto")


def test_an_engine_that_dies_is_named_and_the_others_are_asked_all_the_same(exported, net, monkeypatch):
    failure = parity_of.failure_of_module

    def dies(module, directory, request, stored, *runtimes):
        return (
            "Segmentation fault"
            if "paddle_onednn" in runtimes
            else failure(module, directory, request, stored, *runtimes)
        )

    monkeypatch.setattr(parity_of, "failure_of_module", dies)
    with pytest.raises(ParityError, match=r"^paddle_onednn: .* does not run in a fresh process \(Segmentation fault\)"):
        exported(net)
    _, parity = exported(net, allow_mismatch=["paddle_onednn"])
    assert list(parity["engines"]) == ["paddle"]


def test_a_bundle_of_a_newer_format_is_refused(tmp_path):
    with published(tmp_path / "new", KIND, about={"format": 2, "versions": {"ppcls": "9.1"}}) as partial:
        (partial / "inference.yml").write_text("Global: {}")
    with pytest.raises(
        StorageError, match=r"its format is 2, and this ppcls reads 1; use the ppcls that wrote it \(9.1\)"
    ):
        load_bundle(tmp_path / "new")
