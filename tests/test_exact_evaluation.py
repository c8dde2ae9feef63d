# SPDX-License-Identifier: Apache-2.0
"""Evaluation counts every image exactly once, for any number of images and processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import paddle
import pytest
import toys
from safetensors.numpy import save_file
from toy_arch import ToyNet

TOYS = Path(toys.__file__).parent
ROOT = TOYS.parents[1]
MOST_IMAGES, MOST_PROCESSES = 17, 4


@pytest.fixture(scope="module")
def model():
    """Weights large enough for some answers to be right and others wrong."""
    paddle.seed(3)
    model = ToyNet(class_num=len(toys.CLASSES))
    for name, tensor in model.state_dict().items():
        if name.endswith("weight") and tensor.ndim > 1:
            tensor.set_value(tensor * 3)
    model.eval()
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model):
    """The images, a list of the first n for each n, the weights, and what each process came to."""
    folder = tmp_path_factory.mktemp("shares")
    toys.write_data(folder, num_train=8, num_val=MOST_IMAGES)
    config = toys.write_yaml(folder, folder)
    lines = (folder / "val.txt").read_text().splitlines(keepends=True)
    for number in range(1, MOST_IMAGES + 1):
        (folder / f"{number}.txt").write_text("".join(lines[:number]))
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "weights.safetensors")
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PADDLE_", "CUDA_"))}
    finished = subprocess.run(
        [sys.executable, str(TOYS / "evaluate_shares.py"), str(config), str(folder), str(folder)],
        env={**clean, "PYTHONPATH": f"{ROOT}{os.pathsep}{TOYS}", "OMP_NUM_THREADS": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-5000:]
    return folder


@pytest.fixture(scope="module")
def answers(folder, model):
    """For each image, read here and asked one by one: the rank of its label (0 is right), and its loss."""
    answers = []
    for line in (folder / f"{MOST_IMAGES}.txt").read_text().splitlines():
        path, label = line.split()
        pixels = cv2.imread(str(folder / path))[:, :, ::-1].transpose(2, 0, 1)
        logits = model(paddle.to_tensor((pixels[None] / 255 - 0.5) / 0.5, "float32")).numpy()[0].astype(np.float64)
        own = logits[int(label)]
        answers.append(((logits > own).sum(), np.log(np.exp(logits - own).sum())))
    return np.array(answers)


@pytest.mark.promise("F27")
@pytest.mark.parametrize("number", range(1, MOST_IMAGES + 1))
@pytest.mark.parametrize("processes", range(1, MOST_PROCESSES + 1))
def test_every_image_counts_exactly_once(processes, number, folder, answers):
    ranks, losses = answers[:number].T
    for rank in range(processes):
        told = json.loads((folder / f"{processes}_{rank}.json").read_text())[str(number)]
        assert told["num_samples"] == number
        assert told["top1_correct"] == (ranks < 1).sum()
        assert told["top2_correct"] == (ranks < 2).sum()
        assert told["top1"] == (ranks < 1).sum() / number
        assert told["CELoss"] * number == pytest.approx(losses.sum(), rel=1e-6)


def test_the_images_would_show_one_that_is_left_out_or_counted_twice(answers):
    ranks, losses = answers.T
    assert {0, 1} <= set(ranks.astype(int)) and max(ranks) > 1
    assert len(set(losses.round(4))) == MOST_IMAGES
