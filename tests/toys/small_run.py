# SPDX-License-Identifier: Apache-2.0
"""A training of a small net on noise, with everything that a checkpoint can hold, and checkpoints to be damaged."""

import copy
import json
import random
from contextlib import contextmanager

import numpy as np
import paddle
from paddle import nn

from ppcls.engine.checkpoint import Checkpointer, MovingParts, Pace
from ppcls.engine.ema import ModelEMA
from ppcls.engine.loss_scale import LossScaler
from ppcls.engine.precision import Precision
from ppcls.engine.trainer import TrainState
from ppcls.optimizer.schedule import Cosine
from ppcls.utils.manifest import MANIFEST, Entry, manifest_text
from ppcls.utils.storage import sha256

FILES = ("model.safetensors", "optimizer.safetensors", "ema.safetensors", "state.json", "manifest.json")
SUMS = {"names": ["loss", "top1"], "num_samples": 8, "seconds": 0.5, "parts": {"loss": 0.25}, "metric": [[1, 2]]}


class SmallRun:
    """Model, Adam, average, loss scale; ``advance`` trains, ``save`` writes ``epoch_N`` or ``epoch_N_step_S``."""

    def __init__(self, directory, seed=0, keep_max=9):
        paddle.seed(seed)
        self.model = nn.Sequential(nn.Conv2D(3, 4, 3), nn.BatchNorm2D(4), nn.Flatten(), nn.Linear(16, 3))
        self.schedule = Cosine(10, 4, 0.1)
        self.optimizer = paddle.optimizer.Adam(self.schedule, parameters=self.model.parameters())
        precision = Precision(scaler=LossScaler(8.0, is_dynamic=True))
        self.parts = MovingParts(self.model, self.optimizer, self.schedule, precision, ModelEMA(self.model, 0.9))
        self.checkpointer = Checkpointer(
            directory,
            self.parts,
            Pace(4, 1, 8, 32),
            keep_max=keep_max,
            description={"arch": "net", "class_num": 3, "class_names": ["ant", "bee", "cow"]},
        )
        self.seed = seed
        self.rng = np.random.RandomState(seed)

    def advance(self):
        images = paddle.to_tensor(self.rng.standard_normal([8, 3, 4, 4]).astype("float32"))
        self.model(images).square().mean().backward()
        self.optimizer.step()
        self.optimizer.clear_grad()
        self.schedule.step()
        self.parts.ema.update(self.model)

    def save(self, epoch, batch=0):
        step = 4 * epoch if not batch else 4 * (epoch - 1) + batch
        state = TrainState(epoch, batch, step, metrics={"top1": 0.5 + self.seed}, best=0.5, best_epoch=1, sums=[SUMS])
        self.checkpointer.save(state)

    def tensors(self):
        found = {f"model {name}": tensor.numpy() for name, tensor in self.model.state_dict().items()}
        found.update({f"ema {name}": tensor.numpy() for name, tensor in self.parts.ema.model.state_dict().items()})
        return found


def two_epochs(directory, seed=0):
    """Checkpoints of the ends of two epochs."""
    run = SmallRun(directory, seed)
    for epoch in (1, 2):
        run.advance()
        run.save(epoch)
    return directory


@contextmanager
def put_back(directory):
    """Whatever is done to the files of a directory is undone at the end."""
    contents = {path: path.read_bytes() for path in directory.iterdir()}
    try:
        yield
    finally:
        for path in set(directory.iterdir()) - contents.keys():
            path.unlink()
        for path, content in contents.items():
            if path.is_symlink() or not path.is_file():
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
            path.write_bytes(content)


def seal(directory):
    """A manifest that is right about the files as they are now, as somebody would write it who knows how."""
    files = {
        path.name: Entry(path.stat().st_size, sha256(path))
        for path in sorted(directory.iterdir())
        if path.name != MANIFEST
    }
    (directory / MANIFEST).write_text(manifest_text("checkpoint", files))


HUGE, DEEP = "@huge@", "@deep@"
"""What Python itself would not write: a number of 5000 digits, lists in lists, 300 or 100 000 of them."""


class Fuzz:
    """Changes bytes, and values of JSON, at random; the same seed gives the same changes."""

    VALUES = (
        None,
        True,
        False,
        -1,
        0,
        1,
        3,
        2**31,
        2**63,
        10**18,
        10**30,
        HUGE,
        DEEP,
        0.5,
        -0.0,
        1e308,
        float("nan"),
        float("inf"),
        "",
        "3",
        "x" * 10_000,
        "a\nb",
        "\0",
        "../x",
        "/etc/passwd",
        "\ud800",
        "нет",
        [],
        [[]],
        [None],
        [1, [2, [3]]],
        {},
        {"": None},
        {"a": {"b": 1}},
    )

    def __init__(self, seed):
        self.random = random.Random(seed)

    def bytes(self, content):
        content = bytearray(content)
        for _ in range(self.random.choice((1, 1, 1, 2, 5))):
            place = self.random.randrange(len(content) + 1)
            end = min(place + self.random.choice((1, 2, 7, 100)), len(content))
            piece = bytes(content[place:end])
            inserted = (piece, self.random.randbytes(3), b"[" * 100_000, b'{"a":' * 50_000, b"9" * 5000, b"NaN", b'"')
            kind = self.random.choice(("flipped", "replaced", "gone", "cut off", "inserted"))
            if kind == "flipped" and place < len(content):
                content[place] ^= 1 << self.random.randrange(8)
            elif kind == "replaced":
                content[place:end] = self.random.randbytes(end - place)
            elif kind == "gone":
                del content[place:end]
            elif kind == "cut off":
                del content[place:]
            else:
                content[place:place] = self.random.choice(inserted)
        return bytes(content)

    def tree(self, tree):
        """The text of the same JSON with something in it changed, gone, renamed, added, or there twice."""
        tree = json.loads(json.dumps(tree))
        for _ in range(self.random.choice((1, 1, 1, 2, 4))):
            self._change(tree)
        text = json.dumps(tree).replace(f'"{HUGE}"', "9" * 5000)
        text = text.replace(f'"{DEEP}"', self.random.choice(("[" * 300 + "]" * 300, "[" * 100_000)))
        if self.random.random() < 0.1:
            key = self.random.choice([*tree] or ["a"])
            text = f"{{{json.dumps(key)}: {json.dumps(self._value())}, {text[1:]}"
        return text

    def _change(self, tree):
        places = list(_places(tree))
        if not places:
            tree["a"] = self._value()
            return
        owner, key = self.random.choice(places)
        kind = self.random.choice(("value", "value", "value", "gone", "renamed", "added", "deep", "copied"))
        if kind == "value":
            owner[key] = self._value()
        elif kind == "gone":
            del owner[key]
        elif kind == "renamed" and isinstance(owner, dict):
            owner[f"{key}x"] = owner.pop(key)
        elif kind == "added" and isinstance(owner, dict):
            owner[self.random.choice(("a", "", "..", "x/y", "\n"))] = self._value()
        elif kind == "deep":
            deep = owner[key]
            for _ in range(self.random.choice((1, 3, 50))):
                deep = [deep] if self.random.random() < 0.5 else {"a": deep}
            owner[key] = deep
        else:
            other, place = self.random.choice(places)
            owner[key] = copy.deepcopy(other[place])

    def _value(self):
        return copy.deepcopy(self.random.choice(self.VALUES))


def _places(tree):
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield tree, key
        if isinstance(value, (dict, list)):
            yield from _places(value)
