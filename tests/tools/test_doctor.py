# SPDX-License-Identifier: Apache-2.0
"""`tools/doctor.py` as a person calls it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SECRET = "hunter2"


def doctor(folder, *arguments, options=()):
    command = [sys.executable, *options, str(ROOT / "tools" / "doctor.py"), *arguments]
    variables = {"AWS_SECRET_ACCESS_KEY": SECRET, "HTTPS_PROXY": f"http://u:{SECRET}@h", "FLAGS_tmp": SECRET}
    return subprocess.run(
        command, cwd=folder, env={**os.environ, **variables}, capture_output=True, text=True, timeout=300
    )


def test_json_and_the_self_test_and_nothing_is_left(tmp_path):
    done = doctor(tmp_path, "--json")
    found = json.loads(done.stdout)
    by_name = {finding["what"]: finding for finding in found["findings"]}
    for what in ("computing on cpu", "decoding an image", "saving"):
        assert by_name[what]["level"] == "ok", by_name[what]
    assert by_name["cores"]["value"] >= 1 and "cpu" in by_name["devices"]["value"]
    assert found["exit_code"] == done.returncode == (2 if any(f["level"] == "error" for f in found["findings"]) else 0)
    assert SECRET not in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_any_package_it_still_says_what_is_missing(tmp_path):
    # -S: Python without site-packages.
    done = doctor(tmp_path, options=("-S",))
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert all(re.fullmatch(r"(ok     |warning|error  )  [^:]+: .+", line) for line in lines)
    assert "error    paddlepaddle: not installed; pip install paddlepaddle==3.3.1" in lines
    assert any(line.startswith("error    decoding an image: ModuleNotFoundError: ") for line in lines)
    assert any(line.startswith("ok       saving: ") for line in lines)
