# SPDX-License-Identifier: Apache-2.0
"""An exported model in place of trained weights: the same counts, its own preprocessing, in every engine."""

import numpy as np
import paddle
import pytest
import toys

from ppcls.config import load_config
from ppcls.deploy.bundle import load_bundle
from ppcls.deploy.graph import DeployedGraph
from ppcls.engine import Engine
from ppcls.engine.deployed import DeployedModel
from ppcls.utils.errors import ConfigError, DataError, StorageError
from ppcls.utils.logger import stop_logging

pytest.importorskip("paddle2onnx")
pytest.importorskip("onnxruntime")

RUNTIMES = ("paddle", "paddle_onednn", "onnxruntime")
NET_OF_32 = [
    "Global.image_shape=[3, 32, 32]",
    *(
        f"{place}=[DecodeImage: , ResizeImage: {{size: 32}}, NormalizeImage: {{order: ''}}, ToCHWImage: ]"
        for place in ("Infer.transforms", "DataLoader.Eval.dataset.transform_ops")
    ),
]
NETS = {"ToyNet": [], "TinyDarkNet": NET_OF_32, "DenseNet121": NET_OF_32}


@pytest.fixture(scope="module", params=NETS)
def exported(request, tmp_path_factory, toy_data, fill_rule):
    """The overrides for a net whose weights are filled by a rule, the figures of those weights, and its bundle."""
    folder = tmp_path_factory.mktemp(request.param)
    config = toys.write_yaml(folder, toy_data)
    common = [f"Arch={{name: {request.param}, class_num: 4}}", "Metric.Eval=[TopkAcc: {topk: [1, 2, 3]}]"]
    common += NETS[request.param]
    import toy_arch  # noqa: F401

    from ppcls.config.registry import ARCHS

    paddle.save(fill_rule(ARCHS[request.param](class_num=4)).state_dict(), str(folder / "net.pdparams"))
    engine = Engine(
        load_config(config, [*common, f"Global.pretrained_model={folder}/net", "Global.export_for=[onnxruntime]"])
    )
    figures = engine.eval()
    bundle = engine.export()
    stop_logging()
    return lambda *overrides: load_config(config, [*common, *overrides]), figures, bundle


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_exported_model_counts_as_the_trained_one(exported, runtime):
    load, trained, bundle = exported
    figures = Engine(load(f"Global.bundle={bundle}", f"Global.runtime={runtime}")).eval()
    assert list(figures) == list(trained)
    for name in ("top1", "top2", "top3", "num_samples"):
        assert figures[name] == trained[name]
    assert 0 < trained["top1"] < 1  # else the counts would say little
    assert figures["loss"] == pytest.approx(trained["loss"], rel=1e-4)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_batch_size_of_the_evaluation_changes_nothing(exported, runtime):
    load, trained, bundle = exported
    overrides = f"Global.bundle={bundle}", f"Global.runtime={runtime}", "DataLoader.Eval.sampler.batch_size=7"
    assert Engine(load(*overrides)).eval()["top1"] == trained["top1"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, toy_data):
    """A folder with the file, the weights and the bundle of a briefly trained `ToyNet`, without ONNX."""
    folder = tmp_path_factory.mktemp("bundle")
    config = toys.write_yaml(folder, toy_data)
    Engine(load_config(config)).train()
    Engine(load_config(config, [f"Global.pretrained_model={folder}/output/best_model"])).export()
    stop_logging()
    return folder


@pytest.fixture
def engine(bundle):
    """An `Engine` that asks the bundle."""
    override = f"Global.bundle={bundle}/inference"
    return lambda *overrides: Engine(load_config(bundle / "toy.yaml", [override, *overrides]))


def test_the_bundles_preprocessing_is_used_and_a_difference_is_warned_of(bundle, engine, capfd):
    expected = Engine(load_config(bundle / "toy.yaml", [f"Global.pretrained_model={bundle}/output/best_model"])).eval()
    capfd.readouterr()
    other = "DataLoader.Eval.dataset.transform_ops=[DecodeImage: {to_rgb: false}, NormalizeImage: {order: ''}]"
    figures = engine(other).eval()
    assert figures["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    (warning,) = [line for line in capfd.readouterr().out.splitlines() if "WARNING" in line]
    assert "DataLoader.Eval.dataset.transform_ops is DecodeImage(" in warning
    assert "the bundle's own preprocessing is used: DecodeImage(to_np=True, to_rgb=True" in warning


def test_the_same_preprocessing_is_no_warning_wherever_the_axes_are_moved(engine, capfd):
    engine().eval()
    list(engine().infer())
    out, err = capfd.readouterr()
    assert "WARNING" not in out + err


def test_answers_come_from_the_bundle_with_its_labels_and_its_topk(bundle, engine, capfd):
    overrides = "Infer.PostProcess={name: Topk, topk: 1}", "Infer.transforms=[ToCHWImage: ]"
    results = list(engine(*overrides).infer())
    err = capfd.readouterr().err
    assert "Infer.PostProcess is Topk({'topk': 1}); the bundle's own is used: Topk({'topk': 2})" in err
    assert "Infer.transforms is ; the bundle's own preprocessing is used: DecodeImage(" in err
    weights = f"Global.pretrained_model={bundle}/output/best_model"
    expected = list(Engine(load_config(bundle / "toy.yaml", [weights])).infer())
    assert len(results) == len(expected) == 16
    for result, wanted in zip(results, expected):
        assert {**result, "scores": None} == {**wanted, "scores": None}
        assert result["scores"] == pytest.approx(wanted["scores"], abs=2e-5)


def test_a_bundle_of_another_number_of_classes_is_refused_in_one_line(engine):
    with pytest.raises(
        ConfigError, match=r"^Global.bundle: .* tells 4 classes apart, but Arch.class_num is 5; "
    ) as caught:
        engine("Arch.class_num=5").eval()
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_images_of_another_size_than_the_graph_takes_are_refused(engine, tmp_path):
    import cv2

    cv2.imwrite(str(tmp_path / "large.png"), np.zeros([20, 18, 3], np.uint8))
    with pytest.raises(DataError, match=r"takes float32 images of \[3, 16, 16\], .* makes float32 \[3, 20, 18\] of"):
        list(engine(f"Infer.infer_imgs={tmp_path}").infer())


def test_probabilities_that_an_engine_cuts_off_to_zero_have_a_finite_logarithm(bundle):
    model = DeployedModel(DeployedGraph(load_bundle(bundle / "inference"), "paddle"))
    model.graph.predictor = lambda images: np.array([[1.0, 0.0, 0.0, 0.0]] * len(images), np.float32)
    logits = model(paddle.zeros([2, 3, 16, 16])).numpy()
    assert np.isfinite(logits).all()
    probabilities = paddle.nn.functional.softmax(paddle.to_tensor(logits)).numpy()[0]
    np.testing.assert_allclose(probabilities, [1, 0, 0, 0], atol=1e-27)


def test_a_graph_that_answers_with_another_number_of_classes_is_refused(bundle):
    model = DeployedModel(DeployedGraph(load_bundle(bundle / "inference"), "paddle"))
    model.graph.predictor = lambda images: np.ones([len(images), 7], np.float32)
    with pytest.raises(StorageError, match=r"answers \[2, 7\] to 2 images, not 4 numbers for each"):
        model(paddle.zeros([2, 3, 16, 16]))


@pytest.mark.parametrize(("verb", "done"), [("train", "trained"), ("export", "exported")])
def test_a_bundle_can_only_be_asked(engine, verb, done):
    with pytest.raises(ConfigError, match=f"^Global.bundle: an exported model cannot be {done}"):
        getattr(engine(), verb)()


def test_a_runtime_whose_graph_the_bundle_lacks_is_refused(engine):
    with pytest.raises(ConfigError, match="^Global.runtime: onnxruntime, but .*/inference holds no model.onnx"):
        engine("Global.runtime=onnxruntime").eval()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["Global.bundle=a", "Global.pretrained_model=b"], "bundle .* and pretrained_model .* exclude each other"),
        (["Global.runtime=onnxruntime"], "runtime onnxruntime runs an exported model, and bundle does not name one"),
        (["Global.bundle=a", "Global.runtime=openvino"], "Global.runtime: expected one of 'auto', 'paddle', "),
    ],
)
def test_settings_that_contradict_each_other_are_said_when_the_file_is_read(toy_config, overrides, message):
    with pytest.raises(ConfigError, match=message):
        toy_config(*overrides)


def test_an_export_is_proven_on_images_of_a_data_set_in_memory(bundle, monkeypatch):
    from ppcls.data import ImageNetDataset
    from ppcls.data.transforms.functional import decode_image

    read = ImageNetDataset.read

    def decoded(self, index):
        image, label = read(self, index)
        return decode_image(image), label

    monkeypatch.setattr(ImageNetDataset, "read", decoded)
    weights = f"Global.pretrained_model={bundle}/output/best_model"
    directory = Engine(load_config(bundle / "toy.yaml", [weights])).export()
    assert load_bundle(directory).about["parity"]["real_images"] is True
