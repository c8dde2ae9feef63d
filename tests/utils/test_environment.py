# SPDX-License-Identifier: Apache-2.0
"""What is written down of a run's surroundings, and what is not."""

import json
import os
import shutil
import subprocess

import numpy
import pytest

from ppcls.utils.environment import changes, commit, environment, hide_secrets, shown_command, shown_variables

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("Global.epochs=3", "Global.epochs=3"),
        ("Global.output_url=s3://bucket/run", "Global.output_url=s3://bucket/run"),
        (f"Global.output_url=s3://key:{SECRET}@bucket/run", "Global.output_url=s3://bucket/run"),
        (f"Global.output_url=s3://key:{SECRET}/{SECRET}@bucket/run", "Global.output_url=s3://bucket/run"),
        (f"Arch.pretrained=https://host/w?Signature={SECRET}&x=1", "Arch.pretrained=https://host/w"),
        (f"{{a: http://u:{SECRET}@h/x, b: http://h/y#{SECRET}}}", "{a: http://h/x, b: http://h/y"),
        (f"Store.secret_key={SECRET}", "Store.secret_key=***"),
        (f"{{api-key: x, 'Token': '{SECRET}'}}", "{api-key: x, 'Token': ***"),
    ],
)
def test_a_command_line_is_shown_without_secrets(word, shown):
    assert shown_command(["tools/train.py", "-o", word]) == ["tools/train.py", "-o", shown]


def test_only_variables_on_the_list_are_shown():
    variables = {
        "OMP_NUM_THREADS": "2",
        "CUDA_VISIBLE_DEVICES": "0,1",
        "FLAGS_cudnn_deterministic": "1",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "HTTPS_PROXY": f"http://u:{SECRET}@proxy",
        "FLAGS_somewhere": f"http://u:{SECRET}@h/x",
    }
    assert shown_variables(variables) == {
        "CUDA_VISIBLE_DEVICES": "0,1",
        "FLAGS_cudnn_deterministic": "1",
        "FLAGS_somewhere": "http://h/x",
        "OMP_NUM_THREADS": "2",
    }


def test_long_text_is_cut():
    assert hide_secrets("x" * 2000) == "x" * 1000


def test_an_environment_has_versions_and_figures_and_can_be_written(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    found = environment(["train.py", "-c", f"https://u:{SECRET}@h/x.yaml"], "cpu", 2)
    text = json.dumps(found)
    assert SECRET not in text and json.loads(text) == found
    assert (found["device"], found["processes"]) == ("cpu", 2)
    assert found["packages"]["numpy"] == numpy.__version__
    assert found["command"] == ["train.py", "-c", "https://h/x.yaml"]
    assert found["cores"] >= 1


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_commit_of_a_checkout_and_whether_files_differ_from_it(tmp_path):
    assert commit(tmp_path) is None
    settings = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    person = ["-c", "user.name=a", "-c", "user.email=a@b.c"]

    def git(*arguments):
        command = ["git", "-C", str(tmp_path), *person, *arguments]
        return subprocess.run(
            command, env={**os.environ, **settings}, capture_output=True, text=True, check=True
        ).stdout

    git("init", "--quiet")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "--quiet", "-m", "one")
    head = git("rev-parse", "HEAD").strip()
    assert commit(tmp_path) == head
    (tmp_path / "new").write_text("not known to git")
    assert commit(tmp_path) == head
    (tmp_path / "file").write_text("two")
    assert commit(tmp_path) == f"{head}-dirty"


def test_changes_name_what_can_change_results_only():
    before = {
        "python": "3.11",
        "packages": {"numpy": "2.0", "onnx": "1"},
        "cores": 2,
        "command": ["a"],
        "device": "cpu",
    }
    after = {"python": "3.11", "packages": {"numpy": "2.4"}, "cores": 8, "command": ["b"], "device": "gpu:0"}
    assert changes(before, after) == ["device: cpu -> gpu:0", "numpy: 2.0 -> 2.4", "onnx: 1 -> None"]
    assert changes(before, before) == []
