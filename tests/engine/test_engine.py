# SPDX-License-Identifier: Apache-2.0
"""Verbs and parts of an experiment: built when asked for, missing sections said by name."""

import json
from contextlib import nullcontext

import numpy as np
import paddle
import pytest
import toys
import yaml

from ppcls.data import Loader
from ppcls.data.images import load_image
from ppcls.deploy.bundle import load_bundle
from ppcls.utils.errors import ConfigError, DataError, NumericsError, StorageError

BUILT_BY_TRAINING = {"train_loader", "train_loss", "optimizer", "schedule", "checkpointer", "callbacks"}


@pytest.fixture
def weights(tmp_path, fill_rule):
    """A .pdparams file as ``paddle.save`` writes it, of `ToyNet` with 4 classes, and its values."""
    import toy_arch

    model = fill_rule(toy_arch.ToyNet(class_num=4))
    paddle.save(model.state_dict(), str(tmp_path / "toy.pdparams"))
    return tmp_path / "toy.pdparams", {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def holds(model, expected):
    return all(np.array_equal(tensor.numpy(), expected[name]) for name, tensor in model.state_dict().items())


def test_evaluating_builds_nothing_that_only_training_needs(toy_engine, weights):
    engine = toy_engine(f"Global.pretrained_model={weights[0]}")
    figures = engine.eval()
    assert figures["num_samples"] == 24
    assert not BUILT_BY_TRAINING & set(vars(engine.parts))


def test_evaluating_and_inferring_need_no_training_sections(toy_engine, weights):
    none = ("Loss=null", "Optimizer=null", "DataLoader.Train=null")
    engine = toy_engine(f"Global.pretrained_model={weights[0]}", *none)
    assert set(engine.eval()) == {"top1", "top2", "top1_correct", "top2_correct", "num_samples"}
    assert len(list(engine.infer())) == 16


@pytest.mark.parametrize("section", ["Loss", "Optimizer", "DataLoader.Train", "DataLoader.Eval"])
def test_training_names_the_section_that_is_missing(toy_engine, section):
    with pytest.raises(ConfigError, match=f"^{section}: the section is missing"):
        toy_engine(f"{section}=null").train()


@pytest.mark.parametrize("verb", ["infer", "export"])
def test_inferring_and_exporting_name_the_missing_section(toy_engine, verb):
    with pytest.raises(ConfigError, match="^Infer: the section is missing"):
        getattr(toy_engine("Infer=null"), verb)()


@pytest.mark.parametrize("key", ["Global.pretrained_model", "Arch.pretrained"])
@pytest.mark.parametrize("ending", [".pdparams", ""])
def test_published_weights_fill_the_model(toy_engine, weights, key, ending):
    path, values = weights
    engine = toy_engine(f"{key}={path.with_suffix(ending)}")
    assert holds(engine.parts.model, values)


def test_a_classifier_of_another_size_is_left_for_training_to_fit(toy_engine, weights):
    path, values = weights
    model = toy_engine(f"Global.pretrained_model={path}", "Arch.class_num=5").parts.model
    assert np.array_equal(model.features[0].weight.numpy(), values["features.0.weight"])
    assert model.classifier.weight.shape == [64, 5]


@pytest.mark.parametrize("verb", ["eval", "infer", "export"])
def test_a_classifier_that_nothing_trained_is_never_asked(toy_engine, weights, verb, tmp_path):
    engine = toy_engine(f"Global.pretrained_model={weights[0]}", "Arch.class_num=5")
    with pytest.raises(StorageError, match=r"2 of another shape \(classifier.*untrained: .*Arch.class_num is 5"):
        getattr(engine, verb)()
    assert not (tmp_path / "inference").exists()


def test_labels_are_checked_before_the_model_is_built(toy_engine, toy_data):
    engine = toy_engine("Arch.class_num=3")
    with pytest.raises(DataError, match=r"train\.txt:4: label 3 is outside 0\.\.2.*"):
        engine.train()
    assert "model" not in vars(engine.parts)


@pytest.mark.parametrize("verb", ["eval", "infer", "export"])
def test_an_untrained_model_is_refused_with_the_key_to_write(toy_engine, verb):
    engine = toy_engine()
    with pytest.raises(ConfigError, match=r"^Global.pretrained_model: not given, .*=\S*best_model$"):
        getattr(engine, verb)()
    assert "model" not in vars(engine.parts)


def test_answers_are_the_classes_of_the_logits(toy_engine, weights, toy_data):
    engine = toy_engine(f"Global.pretrained_model={weights[0]}")
    results = list(engine.infer())
    paths = sorted(str(path) for path in (toy_data / "images" / "2").iterdir())
    assert [result["file_name"] for result in results] == paths
    transforms = [call() for call in engine.config.Infer.transforms]
    with paddle.no_grad():
        logits = engine.parts.model(paddle.to_tensor(np.stack([load_image(path, transforms) for path in paths])))
    for result, row in zip(results, logits.numpy().astype(np.float64)):
        best = np.argsort(-row)[:2]
        assert result["class_ids"] == list(best)
        assert result["label_names"] == [toys.CLASSES[index] for index in best]
        assert result["scores"] == pytest.approx(list((np.exp(row) / np.exp(row).sum())[best]), abs=2e-5)


def test_a_file_with_fewer_names_than_classes_is_refused_before_anything_is_exported(toy_engine, weights, tmp_path):
    names = tmp_path / "few.txt"
    names.write_text("0 night\n1 grass\n3 fire\n")
    engine = toy_engine(
        f"Global.pretrained_model={weights[0]}",
        f"Infer.PostProcess.class_id_map_file={names}",
        f"Global.save_inference_dir={tmp_path / 'exported'}",
    )
    with pytest.raises(DataError, match="few.txt: no name for class 2, though the model has 4 classes; take the file"):
        engine.export()
    assert not (tmp_path / "exported").exists()


def test_inferring_keeps_standard_output_for_the_answers(toy_engine, weights, capfd):
    list(toy_engine(f"Global.pretrained_model={weights[0]}").infer())
    out, err = capfd.readouterr()
    assert out == ""
    assert "12 matched" in err


def test_the_deployed_description_holds_labels_and_preprocessing(toy_engine, weights, toy_data):
    engine = toy_engine(f"Global.pretrained_model={weights[0]}")
    directory = engine.export()
    written = yaml.safe_load((directory / "inference.yml").read_text(encoding="utf-8"))
    assert written["PostProcess"] == {"Topk": {"topk": 2, "label_list": list(toys.CLASSES)}}
    graph = {"image_shape": [3, 16, 16], "class_num": 4, "softmax": True}
    assert written["Global"] == {"model_name": "ToyNet", **graph, "class_names": None, "imports": []}
    assert load_bundle(directory).about["parity"]["real_images"] is True
    image = str(toy_data / "images" / "1" / "001.png")
    own = [call() for call in engine.config.Infer.transforms]
    assert np.array_equal(load_image(image, load_bundle(directory).build_transforms()), load_image(image, own))


def test_a_model_that_refuses_image_shape_is_said_in_one_line(toy_engine):
    with pytest.raises(
        ConfigError, match=r"refuses an image of Global.image_shape \[4, 16, 16\]: .*channels"
    ) as caught:
        toy_engine(
            "Global.image_shape=[4, 16, 16]",
            "DataLoader.Train.dataset.transform_ops.3.NormalizeImage.channel_num=4",
            "DataLoader.Eval.dataset.transform_ops.1.NormalizeImage.channel_num=4",
        ).train()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("verb", ["train", "eval"])
def test_images_of_other_channels_than_the_model_takes_are_refused(toy_engine, weights, verb):
    engine = toy_engine(f"Global.pretrained_model={weights[0]}", "Global.image_shape=[1, 16, 16]")
    with pytest.raises(ConfigError, match=r"end in images \[3, 16, 16\], but the model takes \[1, H, W\]"):
        getattr(engine, verb)()


def test_transforms_that_would_work_along_the_wrong_axes_are_refused(toy_engine, weights):
    reordered = "transform_ops=[DecodeImage: {channel_first: true}, RandFlipImage: , NormalizeImage: ]"
    with pytest.raises(ConfigError, match=r"DataLoader.Train.dataset: RandFlipImage takes images \[H, W, C\]"):
        toy_engine(f"DataLoader.Train.dataset.{reordered}").train()
    reordered = "transforms=[DecodeImage: , ToCHWImage: , ResizeImage: {size: 16}]"
    with pytest.raises(ConfigError, match=r"Infer.transforms: ResizeImage takes images \[H, W, C\]"):
        list(toy_engine(f"Global.pretrained_model={weights[0]}", f"Infer.{reordered}").infer())


def test_images_that_are_not_normalized_are_refused_before_the_model_is_built(toy_engine):
    engine = toy_engine("DataLoader.Train.dataset.transform_ops=[DecodeImage: ]")
    with pytest.raises(ConfigError, match="DataLoader.Train.dataset.transform_ops: end in uint8 .*NormalizeImage"):
        engine.train()
    assert "model" not in vars(engine.parts)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("Global.iter_per_epoch=6", "Global.iter_per_epoch: 6, but the training set has only 5 batches"),
        ("Global.update_freq=6", "Global.update_freq: 6 batches make one update, but an epoch has only 5"),
        ("DataLoader.Train.sampler.batch_size=41", "40 images do not fill one batch of 41 and drop_last is true"),
        ("Optimizer={name: Adam, beta1: 2.0}", "beta1"),
        ("Optimizer.lr=-1", "lr: .*-1"),
        ("Arch.pretrained=true", "no published weights for ToyNet"),
        ("AMP={dtype: bfloat16}", "AMP: Paddle .* does not compute in bfloat16 on cpu; write AMP.use_amp: false"),
    ],
)
def test_what_cannot_be_obeyed_is_a_configuration_error(toy_engine, override, message):
    with pytest.raises(ConfigError, match=message):
        toy_engine(override).train()


def test_a_summary_comes_first_and_the_next_commands_last(toy_engine, capfd, tmp_path):
    toy_engine("Global.update_freq=2").train()
    lines = [line.partition("INFO: ")[2] for line in capfd.readouterr().out.splitlines()]
    lines = [line for line in lines if line]
    # 216 + 1152 weights, 4 numbers for each of 24 channels, 64 * 4 + 4
    assert lines[0].startswith("model    ToyNet, 1,724 parameters, ")
    # 8*8*8*27 + 4*4*16*72 + 256 multiplications
    assert f"{(8 * 8 * 8 * 27 + 4 * 4 * 16 * 72 + 256) / 1e9:.3f} GMACs for a 3x16x16 image" in lines[0]
    assert lines[1:4] == [
        "train    40 images of 4 classes",
        "eval     24 images of 4 classes",
        "device   cpu, 1 process",
    ]
    assert lines[4] == "steps    2 epochs of 2 updates, 16 images each (8 a batch x 1 process x 2 batches)"
    assert lines[5] == f"output   {tmp_path}/output"
    assert lines[-2].startswith("next     python tools/export_model.py -c ")
    assert f"Global.pretrained_model={tmp_path}/output/best_model" in lines[-1]


def test_curves_are_written_when_asked_for(toy_engine, tmp_path):
    visualdl = pytest.importorskip("visualdl")
    toy_engine("Global.use_visualdl=true").train()
    (file,) = (tmp_path / "output" / "vdl").glob("vdlrecords*")
    points = visualdl.LogReader(file_path=str(file)).get_data("scalar", "train/loss")
    expected = [(record["step"], record["loss"]) for record in toys.records(tmp_path / "output", "train")]
    assert [point.id for point in points] == [step for step, _ in expected]
    assert [point.value for point in points] == pytest.approx([loss for _, loss in expected])


def test_every_line_of_the_record_is_json_with_its_event(toy_engine, tmp_path):
    toy_engine().train()
    lines = [json.loads(line) for line in (tmp_path / "output" / "train.jsonl").read_text().splitlines()]
    each_epoch = ["train", "train", "train", "epoch", "eval"]
    assert [line["event"] for line in lines] == [*each_epoch * 2, "exit"]
    keys = {"epoch", "batch", "step", "lr", "CELoss", "loss", "top1", "batch_cost", "reader_cost", "ips", "eta_seconds"}
    assert keys <= set(lines[0])


def test_a_class_that_no_training_label_reaches_is_warned_about(toy_engine, capfd):
    toy_engine("Arch.class_num=7").train()
    assert "Arch.class_num is 7, but the training labels end at 3" in capfd.readouterr().out


@pytest.mark.parametrize("lr", [0.01, 1e30])
def test_no_worker_outlives_a_training_or_an_evaluation(toy_engine, monkeypatch, lr):
    closed = []
    close = Loader.close
    monkeypatch.setattr(Loader, "close", lambda loader: (closed.append(loader.pids), close(loader)))
    two = "DataLoader.Train.loader.num_workers=2", "DataLoader.Eval.loader.num_workers=1"
    engine = toy_engine(*two, f"Optimizer.lr={lr}")
    with nullcontext() if lr < 1 else pytest.raises(NumericsError):
        engine.train()
    assert [len(pids) for pids in closed] == [2, 1 if lr < 1 else 0]
    assert engine.parts.train_loader.pids == engine.parts.eval_loader.pids == []
