# SPDX-License-Identifier: Apache-2.0
"""A bundle is verified and its description checked before anything of it is used."""

import json
import sys

import numpy as np
import pytest
import yaml

from ppcls.deploy.bundle import KIND, load_bundle, read_bundle
from ppcls.utils.errors import ConfigError, StorageError
from ppcls.utils.storage import published

DESCRIPTION = {
    "Global": {"model_name": "net", "image_shape": [3, 8, 8], "class_num": 3, "softmax": True, "imports": []},
    "PreProcess": {"transform_ops": [{"DecodeImage": None}, {"ResizeImage": {"size": 8}}, {"ToCHWImage": None}]},
    "PostProcess": {"Topk": {"topk": 2, "label_list": ["a", "b: c", "ü"]}},
    "Parity": {"images": 8},
}


@pytest.fixture
def bundle(tmp_path):
    """Publish a bundle without a working graph; its description changed at one path."""

    def write(path="", value=None, kind=KIND, leave_out=()):
        description = json.loads(json.dumps(DESCRIPTION))
        *parents, last = path.split(".")
        place = description
        for key in parents:
            place = place[key]
        if last:
            place[last] = value
        directory = tmp_path / "bundle"
        with published(directory, kind) as partial:
            for name in {"inference.json", "inference.pdiparams", "model.onnx"} - set(leave_out):
                (partial / name).write_bytes(bytes(100))
            (partial / "inference.yml").write_text(yaml.safe_dump(description, allow_unicode=True), "utf-8")
        return directory

    return write


def test_a_bundle_gives_its_preprocessing_postprocessing_and_labels(bundle):
    loaded = load_bundle(bundle())
    assert [type(part).__name__ for part in loaded.build_transforms()] == ["DecodeImage", "ResizeImage", "ToCHWImage"]
    (answer,) = loaded.build_postprocess()(np.array([[0.0, 2.0, 1.0]]))
    assert answer["label_names"] == ["b: c", "ü"]
    assert (loaded.graph.class_num, loaded.graph.image_shape, loaded.graph.softmax) == (3, (3, 8, 8), True)


@pytest.mark.promise("F32")
@pytest.mark.parametrize("name", ["model.onnx", "inference.json", "inference.pdiparams", "inference.yml"])
def test_a_flipped_bit_in_any_file_is_refused(bundle, name):
    directory = bundle()
    content = bytearray((directory / name).read_bytes())
    content[50] ^= 1
    (directory / name).write_bytes(content)
    with pytest.raises(StorageError, match=f"{name}: altered, its sha256"):
        load_bundle(directory)


def test_a_directory_that_is_no_bundle_is_refused(bundle, tmp_path):
    with pytest.raises(StorageError, match="is a checkpoint, not a deployed model"):
        load_bundle(bundle(kind="checkpoint"))
    with pytest.raises(StorageError, match="nowhere: there is no such directory"):
        load_bundle(tmp_path / "nowhere")
    with pytest.raises(StorageError, match="not complete"):
        load_bundle(tmp_path)


def test_a_graph_that_was_not_exported_is_not_run(bundle):
    directory = bundle(leave_out=["model.onnx"])
    with pytest.raises(ConfigError, match="Global.runtime: onnxruntime, but .* holds no model.onnx; export .*--onnx"):
        load_bundle(directory).runtime("onnxruntime")
    (directory / "model.onnx").write_bytes(b"from elsewhere")
    with pytest.raises(StorageError, match="model.onnx: its manifest does not list it; remove it"):
        load_bundle(directory)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("PreProcess.transform_ops", [{"Reside": None}], r"inference.yml:\d+: .*unknown transform 'Reside'; did you"),
        ("PreProcess.transform_ops", [{"ResizeImage": {"sise": 8}}], "no parameter 'sise'; did you mean 'size'"),
        ("PreProcess.transform_ops", [{"NormalizeImage": {"std": [0, 1, 1]}}], "std must not contain zero"),
        ("PreProcess.transform_ops", 3, "expected a list of transforms"),
        ("PostProcess", {"os.system": "ls"}, "PostProcess: "),
        ("PostProcess", {"Topk": {"label_list": ["a", "b"]}}, "2 labels for 3 classes"),
        ("PostProcess", {"Topk": {"label_list": {"a": 1}}}, "PostProcess.label_list: expected a list"),
        ("PostProcess", None, "PostProcess: "),
        ("Global.class_num", 0, "Global.class_num: expected at least 1"),
        ("Global.softmax", "yes please", "Global.softmax: expected true or false"),
        ("Global", {}, "needs 'class_num'"),
        ("Global.imports", "os", "Global.imports: expected a list"),
    ],
)
def test_a_description_that_cannot_be_obeyed_is_refused_with_its_line(bundle, path, value, message):
    with pytest.raises(ConfigError, match=message):
        load_bundle(bundle(path, value))


def test_a_bundle_cannot_have_a_module_imported_that_the_run_does_not_name_itself(bundle, tmp_path, monkeypatch):
    (tmp_path / "runs_code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(tmp_path)
    directory = bundle("Global.imports", ["runs_code"])
    with pytest.raises(ConfigError, match="needs the module 'runs_code'.* if you trust it, name it in your own Global"):
        load_bundle(directory)
    assert not (tmp_path / "ran").exists()
    # the export's own process trusts what it has just written
    read_bundle(directory, import_modules=True)
    assert (tmp_path / "ran").exists()
    load_bundle(directory)  # now a module of this process
    del sys.modules["runs_code"]
