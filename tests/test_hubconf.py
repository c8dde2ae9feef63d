# SPDX-License-Identifier: Apache-2.0
"""``paddle.hub`` on the repository, from another directory and a process that has never seen ppcls."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest

import ppcls.arch  # noqa: F401
from ppcls.config.registry import ARCHS

ROOT = Path(__file__).resolve().parents[1]

ASK = """
import json, sys
import paddle
root, weights = sys.argv[1:]
names = paddle.hub.list(root, source="local")
model = paddle.hub.load(root, "TinyDarkNet", source="local", class_num=5, pretrained=weights)
model.eval()
print(json.dumps({
    "names": names,
    "help": {name: paddle.hub.help(root, name, source="local") for name in names},
    "answer": model(paddle.full([1, 3, 32, 32], 0.5)).tolist(),
}))
"""


@pytest.fixture(scope="module")
def model():
    paddle.seed(1)
    model = ARCHS["TinyDarkNet"](class_num=5)
    model.eval()
    return model


@pytest.fixture(scope="module")
def answer(model, tmp_path_factory):
    directory = tmp_path_factory.mktemp("elsewhere")
    paddle.save(model.state_dict(), str(directory / "weights.pdparams"))
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", ASK, str(ROOT), str(directory / "weights")]
    finished = subprocess.run(
        command, cwd=directory, env=clean, capture_output=True, text=True, timeout=240, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout.splitlines()[-1])


def test_the_list_is_that_of_the_registered_architectures(answer):
    own = {name for name in ARCHS if ARCHS[name].__module__.startswith("ppcls.")}  # not the toys of other tests
    assert set(answer["names"]) == own


def test_help_is_the_docstring_of_each(answer):
    assert all(text and text == ARCHS[name].__doc__ for name, text in answer["help"].items())


def test_class_num_and_pretrained_reach_the_architecture(answer, model):
    expected = model(paddle.full([1, 3, 32, 32], 0.5)).numpy()
    assert expected.shape == (1, 5)
    np.testing.assert_allclose(answer["answer"], expected, rtol=1e-5, atol=1e-6)
