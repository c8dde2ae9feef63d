# SPDX-License-Identifier: Apache-2.0
"""Train, evaluate, infer and export from the command line."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import toys

from ppcls.data.images import load_image
from ppcls.deploy.bundle import load_bundle
from ppcls.deploy.runtime import Predictor

ROOT = Path(__file__).resolve().parents[2]


def test_training_says_where_the_model_is_and_what_comes_next(trained):
    lines = (trained / "log").read_text().splitlines()
    config, best = trained / "output" / "config.yaml", trained / "output" / "best_model"
    assert lines[-3].endswith(f"model    {best}")
    for line, name in zip(lines[-2:], ("export_model", "infer")):
        assert re.search(rf"python \S*tools/{name}.py -c {config} -o Global.pretrained_model={best}$", line)
    assert "\r" not in (trained / "log").read_text()  # no progress bar in a pipe


def test_evaluating_gives_the_figures_that_training_gave(trained, process):
    best = trained / "output" / "best_model"
    done = process("eval", "-c", trained / "output" / "config.yaml", "-o", f"Global.pretrained_model={best}")
    assert (done.returncode, done.stderr) == (0, "")
    record = toys.records(trained / "output", "eval")[-1]
    assert f"loss: {record['loss']:.5f}, top1: {record['top1']:.5f}" in done.stdout
    assert "num_samples: 24" in done.stdout


def test_the_commands_that_training_names_work_and_agree(trained, process):
    arguments = ["-c", trained / "output" / "config.yaml"]
    arguments += ["-o", f"Global.pretrained_model={trained / 'output' / 'best_model'}"]
    exported = process("export_model", *arguments)
    assert exported.returncode == 0, exported.stderr
    assert "parity   24 real images in 8 cases" in exported.stdout
    inferred = process("infer", *arguments)
    assert inferred.returncode == 0
    answers = [json.loads(line) for line in inferred.stdout.splitlines()]
    paths = sorted(str(path) for path in (trained / "data" / "images" / "2").iterdir())
    assert [answer["file_name"] for answer in answers] == paths
    assert all(answer["label_names"][0] == "sea" for answer in answers)
    directory = trained / "inference"
    transforms = load_bundle(directory).build_transforms()
    images = np.stack([load_image(path, transforms) for path in paths])
    scores = np.sort(Predictor(directory)(images), axis=1)[:, ::-1][:, :2]
    np.testing.assert_allclose(scores, [answer["scores"] for answer in answers], atol=2e-5)


def test_a_bad_image_gets_its_line_the_others_are_answered_and_the_exit_code_is_3(tool, run_folder):
    folder = run_folder / "data" / "images" / "2"
    names = sorted(path.name for path in folder.iterdir())
    (folder / names[1]).write_bytes(b"no image")
    code, out, err = tool("infer", f"Global.pretrained_model={run_folder}/output/best_model")
    answers = [json.loads(line) for line in out.splitlines()]
    assert code == 3
    assert [Path(answer["file_name"]).name for answer in answers] == names
    assert [index for index, answer in enumerate(answers) if "error" in answer] == [1]
    assert err.splitlines()[-1] == f"1 of {len(names)} images could not be read; their lines say why"


def test_a_list_with_missing_files_answers_the_rest(tool, run_folder):
    (run_folder / "list.txt").write_text("images/0/000.png\nnowhere.png\nimages/1/001.png\n")
    settings = f"Infer.infer_list={run_folder}/list.txt", f"Infer.infer_imgs={run_folder}/data"
    code, out, _ = tool("infer", *settings, f"Global.pretrained_model={run_folder}/output/epoch_2")
    answers = [json.loads(line) for line in out.splitlines()]
    assert code == 3
    assert ["error" in answer for answer in answers] == [False, True, False]


def test_export_refused_by_parity_exits_with_7_and_keeps_the_older_export(tool, run_folder, monkeypatch):
    from ppcls.deploy import parity

    weights = f"Global.pretrained_model={run_folder}/output/best_model"
    ask = parity.answers_of_fresh_process

    def worse(directory, images, runtimes):
        answers = ask(directory, images, runtimes)
        given = answers["paddle"]
        return {**answers, "paddle": replace(given, outputs={case: 0.9 * each for case, each in given.outputs.items()})}

    assert tool("export_model", weights)[0] == 0
    before = toys.digests(run_folder / "inference")
    monkeypatch.setattr(parity, "answers_of_fresh_process", worse)
    code, _, err = tool("export_model", weights)
    assert code == 7
    assert err.startswith("paddle: the exported graph does not answer as the trained model does, in Paddle Inference")
    assert err.endswith("\nnothing was published\n")
    assert toys.digests(run_folder / "inference") == before


@pytest.mark.parametrize("name", ["train", "eval", "infer", "export_model"])
def test_help_and_usage_errors_do_not_wait_for_paddle(name):
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['{name}.py', *sys.argv[1:]]\n"
        "try:\n"
        f"    runpy.run_path({str(ROOT / 'tools' / name) + '.py'!r}, run_name='__main__')\n"
        "finally:\n"
        "    print('paddle' in sys.modules, file=sys.stderr)\n"
    )
    for arguments, wanted in (["--help"], 0), ([], 2):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == wanted
        assert done.stderr.splitlines()[-1] == "False"
        assert f"usage: {name}.py" in done.stdout + done.stderr


def test_an_unexpected_exception_keeps_its_traceback_and_exits_with_1(trained, process, tmp_path):
    (tmp_path / "broken_part.py").write_text("import toy_arch\ntoy_arch.ToyNet.forward = lambda self, x: x.nonsense\n")
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "eval.py"), "-c", str(trained / "toy.yaml")]
        + ["-o", "Global.imports=[toy_arch, broken_part]", "-o", f"Global.output_dir={tmp_path}"]
        + ["-o", f"Global.pretrained_model={trained}/output/best_model"],
        env={"PYTHONPATH": f"{Path(toys.__file__).parent}:{tmp_path}", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "nonsense" in done.stderr


def test_export_without_the_evaluation_list_is_compared_on_the_images_of_infer(tool, run_folder):
    weights = f"Global.pretrained_model={run_folder}/output/best_model"
    code, out, _ = tool("export_model", weights, "DataLoader.Eval.dataset.cls_label_path=nowhere.txt")
    assert code == 0
    assert "nowhere.txt: cannot be read" in out
    assert "real images" in out


def test_export_without_any_image_is_compared_on_noise_and_says_so(tool, run_folder):
    weights = f"Global.pretrained_model={run_folder}/output/best_model"
    nowhere = "DataLoader.Eval.dataset.cls_label_path=nowhere.txt", "Infer.infer_imgs=nowhere"
    code, out, _ = tool("export_model", weights, *nowhere)
    assert code == 0
    assert "4 images of noise, as none was found, in" in out


def test_a_file_name_that_is_not_utf8_is_answered_as_valid_json(tool, run_folder):
    folder = run_folder / "data" / "images" / "2"
    name = sorted(folder.iterdir())[0]
    odd = os.fsdecode(os.fsencode(folder) + b"/\xff.png")
    shutil.copy(name, odd)
    code, out, _ = tool("infer", f"Global.pretrained_model={run_folder}/output/best_model")
    assert code == 0
    assert odd in [json.loads(line)["file_name"] for line in out.splitlines()]
