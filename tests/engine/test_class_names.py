# SPDX-License-Identifier: Apache-2.0
"""The names of the classes go where the weights go: evaluation, answers and exports number classes as training did."""

import json

import cv2
import numpy as np
import pytest
import yaml

from ppcls.config import load_config
from ppcls.engine import Engine
from ppcls.utils.errors import DataError

COLOURS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}


def add_images(folder, names, count):
    rng = np.random.RandomState(0)
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            noise = rng.randint(0, 40, (32, 32, 3))
            image = np.clip(np.array(COLOURS.get(name, (9, 9, 9))) - 20 + noise, 0, 255).astype(np.uint8)
            cv2.imwrite(str(folder / name / f"{number}.png"), image[:, :, ::-1])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model that tells three colours apart, trained on a folder; gives the folder of everything."""
    root = tmp_path_factory.mktemp("colours")
    add_images(root / "train", COLOURS, 12)
    add_images(root / "val", COLOURS, 4)
    add_images(root / "two", ("green", "red"), 4)
    add_images(root / "foreign", ("green", "violet"), 1)
    normalize = {"NormalizeImage": {"mean": [0.5] * 3, "std": [0.5] * 3, "order": ""}}
    loader = {
        "dataset": {"name": "ImageFolder", "image_root": str(root / "train"), "transform_ops": [normalize]},
        "sampler": {"batch_size": 12, "shuffle": True},
        "loader": {"num_workers": 0},
    }
    config = {
        "Global": {
            "output_dir": str(root / "output"),
            "save_inference_dir": str(root / "bundle"),
            "epochs": 8,
            "image_shape": [3, 32, 32],
        },
        "Arch": {"name": "TinyDarkNet", "class_num": 3},
        "Loss": {"Train": [{"CELoss": None}]},
        "Optimizer": {"name": "Momentum", "lr": 0.05},
        "DataLoader": {
            "Train": loader,
            "Eval": {**loader, "dataset": {**loader["dataset"], "image_root": str(root / "val")}},
        },
        "Metric": {"Eval": [{"TopkAcc": {"topk": [1]}}]},
        "Infer": {
            "infer_imgs": str(root / "val" / "green"),
            "transforms": [{"DecodeImage": None}, normalize, {"ToCHWImage": None}],
            "PostProcess": {"name": "Topk", "topk": 3},
        },
    }
    (root / "x.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    Engine(load_config(root / "x.yaml")).train()
    return root


def engine(root, *overrides):
    weights = (
        []
        if any("bundle" in override for override in overrides)
        else [f"Global.pretrained_model={root}/output/epoch_8"]
    )
    return Engine(load_config(root / "x.yaml", [*weights, *overrides]))


def test_every_checkpoint_holds_the_names(trained):
    for name in ("epoch_8", "epoch_7", "best_model"):
        state = json.loads((trained / "output" / name / "state.json").read_text())
        assert state["class_names"] == ["blue", "green", "red"]


def test_a_folder_that_lacks_a_class_is_numbered_as_in_training(trained):
    assert engine(trained).eval()["top1"] == 1.0
    two = engine(trained, f"DataLoader.Eval.dataset.image_root={trained}/two")
    assert two.eval()["top1"] == 1.0
    assert sorted(set(two.parts.eval_loader.dataset.labels.tolist())) == [1, 2]


@pytest.mark.parametrize("name", ["best_model/model.safetensors", "best_model/model"])
def test_the_names_are_found_however_the_weights_are_named(trained, name):
    weights = f"Global.pretrained_model={trained}/output/{name}"
    assert engine(trained, weights, f"DataLoader.Eval.dataset.image_root={trained}/two").eval()["top1"] == 1.0


def test_a_class_that_was_not_trained_is_an_error(trained):
    with pytest.raises(DataError, match=r"the class 'violet' \(1 such\) is not one of the 3 that the model is trained"):
        engine(trained, f"DataLoader.Eval.dataset.image_root={trained}/foreign").eval()


def test_answers_and_exports_have_the_names(trained):
    answers = list(engine(trained).infer())
    assert [answer["label_names"][0] for answer in answers] == ["green"] * 4
    engine(trained).export()
    description = yaml.safe_load((trained / "bundle" / "inference.yml").read_text())
    assert description["PostProcess"]["Topk"]["label_list"] == ["blue", "green", "red"]
    deployed = engine(trained, f"Global.bundle={trained}/bundle", f"DataLoader.Eval.dataset.image_root={trained}/two")
    assert deployed.eval()["top1"] == 1.0
    assert [answer["label_names"][0] for answer in engine(trained, f"Global.bundle={trained}/bundle").infer()] == [
        "green"
    ] * 4


def test_training_on_with_another_folder_is_an_error(trained):
    add_images(trained / "renamed", ("blue", "green", "violet"), 12)
    others = [f"DataLoader.Train.dataset.image_root={trained}/renamed", "Global.eval_during_train=false"]
    with pytest.raises(DataError, match=r"epoch_8: was trained with other .*'red' \(1 such\) is gone, 'violet'"):
        Engine(load_config(trained / "x.yaml", [*others, "Global.epochs=9", "Global.checkpoints=auto"])).train()
