# SPDX-License-Identifier: Apache-2.0
"""A bundle that somebody has changed is not loaded, whatever the change."""

import hashlib
import json
import os
import shutil

import pytest
import yaml

from ppcls.deploy.bundle import KIND, load_bundle
from ppcls.utils.errors import StorageError
from ppcls.utils.storage import MANIFEST, published

FILES = ("inference.json", "inference.pdiparams", "model.onnx", "inference.yml")
DESCRIPTION = {
    "Global": {"model_name": "net", "image_shape": [3, 8, 8], "class_num": 3, "softmax": True},
    "PreProcess": {"transform_ops": [{"DecodeImage": None}, {"ToCHWImage": None}]},
    "PostProcess": {"Topk": {"topk": 2, "label_list": ["cat", "dog", "owl"]}},
}


@pytest.fixture
def bundle(tmp_path):
    with published(tmp_path / "bundle", KIND) as partial:
        for name in FILES[:3]:
            (partial / name).write_bytes(name.encode() * 20)
        (partial / "inference.yml").write_text(yaml.safe_dump(DESCRIPTION))
    load_bundle(tmp_path / "bundle")
    return tmp_path / "bundle"


def flip(name):
    def tamper(directory):
        content = bytearray((directory / name).read_bytes())
        content[len(content) // 2] ^= 1
        (directory / name).write_bytes(content)

    return tamper


def linked(name):
    def tamper(directory):
        shutil.move(directory / name, directory.parent / "elsewhere")
        (directory / name).symlink_to(directory.parent / "elsewhere")

    return tamper


def replaced(old, new):
    def tamper(directory):
        path = directory / "inference.yml"
        path.write_text(path.read_text().replace(old, new))

    return tamper


def swapped_files(directory):
    one, two = (directory / name for name in FILES[1:3])
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)


def swapped_labels(directory):
    path = directory / "inference.yml"
    path.write_text(path.read_text().replace("cat", "?").replace("dog", "cat").replace("?", "dog"))


def in_manifest(change):
    def tamper(directory):
        # With a sha256 of its own that is right, so that something else has to be found.
        manifest = json.loads((directory / MANIFEST).read_text())
        change(manifest)
        del manifest["sha256"]
        digest = hashlib.sha256(json.dumps(manifest, indent=1).encode()).hexdigest()
        (directory / MANIFEST).write_text(json.dumps({**manifest, "sha256": digest}, indent=1))

    return tamper


def says_besides(**besides):
    return lambda manifest: manifest.setdefault("about", {}).update(besides)


def listed_elsewhere(name):
    def tamper(directory):
        (directory.parent / "elsewhere").write_bytes(b"x")
        entry = {"size": 1, "sha256": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"}
        in_manifest(lambda manifest: manifest["files"].update({name: entry}))(directory)

    return tamper


def manifest_of_pipe(directory):
    (directory / MANIFEST).unlink()
    os.mkfifo(directory / MANIFEST)


TAMPERINGS = {
    **{f"a flipped bit in {name}": flip(name) for name in FILES},
    **{f"{name} is a link": linked(name) for name in (*FILES, MANIFEST)},
    "labels are swapped": swapped_labels,
    "a label is another": replaced("owl", "emu"),
    "the preprocessing is another": replaced("ToCHWImage", "ToCHWimage"),
    "a module is to be imported": replaced("model_name", "imports: [antigravity]\n  model_name"),
    "files are swapped": swapped_files,
    "a link is added": lambda directory: (directory / "more").symlink_to("/etc/passwd"),
    "a link to a folder is added": lambda directory: (directory / "more").symlink_to(directory.parent),
    "a file is added": lambda directory: (directory / ".DS_Store").write_bytes(b""),
    "a file is cut off": lambda directory: os.truncate(directory / "inference.pdiparams", 10),
    "a file is longer": lambda directory: os.truncate(directory / "inference.pdiparams", 10_000),
    "a file is missing": lambda directory: (directory / "inference.json").unlink(),
    "the manifest is missing": lambda directory: (directory / MANIFEST).unlink(),
    "the manifest is empty": lambda directory: (directory / MANIFEST).write_text(""),
    "the manifest is nested deeply": lambda directory: (directory / MANIFEST).write_text("[" * 100_000),
    "the manifest is too large": lambda directory: os.truncate(directory / MANIFEST, 1 << 30),
    "the manifest is a pipe": manifest_of_pipe,
    "the manifest has infinite sizes": in_manifest(
        lambda manifest: manifest["files"]["inference.yml"].update(size=float("inf"))
    ),
    "the manifest leaves the graph out": in_manifest(lambda manifest: manifest["files"].pop("inference.json")),
    "the manifest is of another kind": in_manifest(lambda manifest: manifest.update(kind="checkpoint")),
    "the manifest lists a file above": listed_elsewhere("../elsewhere"),
    "the manifest ranks no list of engines": in_manifest(says_besides(fastest=None)),
    "the manifest ranks what is no engine": in_manifest(says_besides(fastest=[[3]])),
    "the manifest's versions are none": in_manifest(says_besides(versions=["1"])),
    "the manifest's format is a word": in_manifest(says_besides(format="1")),
}

REASONS = {
    "the manifest has infinite sizes": r"cannot be read \(.*\)$",
    "the manifest leaves the graph out": "its manifest does not list inference.json",
    "the manifest is of another kind": "is a checkpoint, not a deployed model",
    **dict.fromkeys(
        [
            "the manifest ranks no list of engines",
            "the manifest ranks what is no engine",
            "the manifest's versions are none",
            "the manifest's format is a word",
        ],
        "says what it cannot",
    ),
    "a file is added": "its manifest does not list it",
    "the manifest lists a file above": "missing, though the manifest lists it",
}
"""Where the manifest agrees with itself; elsewhere a file or the manifest does not have its sha256."""


@pytest.mark.promise("F32")
@pytest.mark.parametrize("name", TAMPERINGS)
def test_a_tampered_bundle_is_refused(bundle, name):
    TAMPERINGS[name](bundle)
    with pytest.raises(StorageError, match=REASONS.get(name)) as caught:
        load_bundle(bundle)
    assert str(caught.value).startswith(str(bundle)) and "\n" not in str(caught.value)
