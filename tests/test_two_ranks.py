# SPDX-License-Identifier: Apache-2.0
"""Two processes (gloo): who fetches, who writes, and what is sent."""

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import paddle
import pytest
import toys
from safetensors.numpy import save_file
from toy_arch import ToyNet

TOYS = Path(toys.__file__).parent
ROOT = TOYS.parents[1]


class Files(http.server.SimpleHTTPRequestHandler):
    """Answers with the files of a folder, and keeps what it was asked for."""

    def do_GET(self):
        self.server.asked.append(self.path)
        super().do_GET()

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder in which ``two_ranks.py`` has run, what each process told, and what was fetched."""
    folder, site = tmp_path_factory.mktemp("two_ranks"), tmp_path_factory.mktemp("site")
    config = toys.write_yaml(folder, toys.write_data(folder / "data"))
    shutil.copy(folder / "data" / "val.txt", site)
    shutil.make_archive(str(site / "data"), "zip", folder, "data")
    state = {name: tensor.numpy() for name, tensor in ToyNet(class_num=4).state_dict().items()}
    save_file(state, site / "weights.safetensors")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *given: Files(*given, directory=str(site)))
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PADDLE_", "CUDA_"))}
    address = f"http://127.0.0.1:{server.server_port}"
    finished = subprocess.run(
        [sys.executable, str(TOYS / "two_ranks.py"), str(config), address, str(folder)],
        env={
            **clean,
            "PYTHONPATH": f"{ROOT}{os.pathsep}{TOYS}",
            "OMP_NUM_THREADS": "1",
            "PPCLS_CACHE": str(folder / "cache"),
        },
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    server.shutdown()
    server.server_close()
    assert finished.returncode == 0, finished.stderr[-5000:]
    return folder, [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)], server.asked


def test_one_process_fetches_for_both(run):
    folder, _, asked = run
    assert sorted(asked) == ["/data.zip", "/val.txt", "/weights.safetensors"]
    assert len(toys.records(folder / "fetched", "eval")) == 1


def test_only_the_first_process_writes_into_the_output_directory(run):
    folder, told, _ = run
    output = folder / "fetched"
    own, other = ({path for path in each["written"] if Path(path).is_relative_to(output)} for each in told)
    assert {str(output / name) for name in ("train.log", "train.jsonl", "config.yaml")} <= own
    # whether it could write is looked at in each process, with a file of another name that is gone at once
    assert {path for path in other if path != str(output) and ".write-probe-" not in path} == set()
    assert not [path for path in output.rglob("*") if ".write-probe-" in path.name]


def test_gradients_are_sent_once_an_update_however_many_batches_make_it(run):
    _, told, _ = run
    for each in told:
        size = each["gradient bytes"]
        came = [after - before for before, after in zip(each["received"], each["received"][1:])]
        assert len(came) == 8
        assert size > 300_000
        # In a ring of two each receives as many bytes as the gradients have; the rest are frames and small questions.
        for batch, number in enumerate(came, 1):
            expected = size if batch % 4 == 0 else 0
            assert expected <= number < expected + 0.05 * size, came


@pytest.mark.skipif(paddle.is_compiled_with_cuda(), reason="there may be GPUs here")
def test_statistics_that_the_device_cannot_share_are_refused_in_one_line(run):
    _, told, _ = run
    line = "Arch.use_sync_bn: Paddle shares batch statistics on GPUs only; remove it on a CPU"
    assert [each["sync BN"] for each in told] == [["ConfigError", line]] * 2
