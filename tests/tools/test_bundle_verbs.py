# SPDX-License-Identifier: Apache-2.0
"""Export with ONNX, then evaluate and infer with what was exported, from the command line."""

import json
import re

import pytest

pytest.importorskip("paddle2onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def exported(trained, process):
    """The trained folder, its model exported with ``--onnx``; and what the export printed."""
    weights = f"Global.pretrained_model={trained}/output/best_model"
    place = f"Global.save_inference_dir={trained}/with_onnx"
    done = process("export_model", "-c", trained / "toy.yaml", "-o", weights, "-o", place, "--onnx")
    assert (done.returncode, done.stderr) == (0, "")
    return trained / "with_onnx", done.stdout


def test_an_export_names_each_engine_that_it_was_compared_in(exported):
    directory, out = exported
    engines = re.findall(r"parity .* same first class for all, .* in (Paddle Inference|ONNX Runtime)", out)
    assert engines == ["Paddle Inference", "Paddle Inference", "ONNX Runtime"]
    assert (directory / "model.onnx").is_file()


@pytest.mark.parametrize("runtime", ["paddle", "onnxruntime"])
def test_the_exported_model_is_evaluated_and_asked_as_the_trained_one(trained, exported, process, runtime):
    directory, _ = exported
    weights = ["-c", trained / "toy.yaml", "-o", f"Global.pretrained_model={trained}/output/best_model"]
    bundle = ["-c", trained / "toy.yaml", "-o", f"Global.bundle={directory}", "-o", f"Global.runtime={runtime}"]
    figures = []
    for arguments in weights, bundle:
        done = process("eval", *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        figures.append(re.search(r"top1: .*num_samples: \d+", done.stdout)[0])
    assert figures[0] == figures[1]
    answers = []
    for arguments in weights, bundle:
        done = process("infer", *arguments)
        assert done.returncode == 0
        answers.append([json.loads(line) for line in done.stdout.splitlines()])
    for trained_answer, answer in zip(*answers):
        assert answer["scores"] == pytest.approx(trained_answer.pop("scores"), abs=2e-5)
        assert {key: value for key, value in answer.items() if key != "scores"} == trained_answer


def test_a_flipped_bit_in_the_onnx_graph_is_refused_in_one_line(exported, tool, tmp_path):
    import shutil

    directory = tmp_path / "damaged"
    shutil.copytree(exported[0], directory)
    content = bytearray((directory / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (directory / "model.onnx").write_bytes(content)
    code, _, err = tool("eval", f"Global.bundle={directory}", "Global.runtime=onnxruntime")
    assert code == 5
    assert err.splitlines() == [
        f"Global.bundle: {directory}/model.onnx: altered, its sha256 is not the one in the manifest"
    ]


def test_onnx_without_its_packages_is_one_line_exit_code_2_and_nothing_published(tool, run_folder, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "paddle2onnx", None)
    weights = f"Global.pretrained_model={run_folder}/output/best_model"
    place = f"Global.save_inference_dir={run_folder}/none"
    code, _, err = tool("export_model", weights, place, "Global.export_for=[onnxruntime]")
    assert code == 2
    (line,) = err.splitlines()
    assert 'pip install "ppcls[onnx]"' in line
    assert not (run_folder / "none").exists()
