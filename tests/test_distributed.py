# SPDX-License-Identifier: Apache-2.0
"""Two processes on one machine (gloo): they train together, and evaluate every image exactly once."""

import json
import os
import re
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import paddle
import pytest

from ppcls.utils.device import available_devices

ROOT = Path(__file__).resolve().parents[1]
CONFIG = "configs/quick_start/digits.yaml"


def run(arguments: list[str], **environment: str) -> subprocess.CompletedProcess:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PADDLE_", "CUDA_"))}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=ROOT, env={**clean, **environment}, capture_output=True, text=True, timeout=600, check=False
    )


def launch(directory: Path, options: list[str], tool: str, *overrides: str, **environment: str):
    launcher = ["-m", "paddle.distributed.launch", *options, "--log_dir", str(directory)]
    return run([*launcher, f"tools/{tool}.py", *overrides], **environment)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def figures(text: str) -> dict[str, str]:
    """The figures of the last evaluation in a log."""
    line = re.findall(r"\[Eval\].*\[Avg\] (.*)", text)[-1]
    return dict(item.split(": ") for item in line.split(", "))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The output directory and the log of a short training on two processes."""
    directory = tmp_path_factory.mktemp("two")
    settings = ["device=cpu", "epochs=1", "iter_per_epoch=6", f"output_dir={directory}/output"]
    overrides = [word for setting in settings for word in ("-o", f"Global.{setting}")]
    finished = launch(directory / "log", ["--nproc_per_node", "2"], "train", "-c", CONFIG, *overrides)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return directory / "output", finished.stdout + finished.stderr


def test_two_processes_train_together(trained):
    _, log = trained
    assert "cpu, 2 processes" in log
    assert "6 updates, 64 images each" in log


def test_two_machines_of_one_process_train_as_one_machine_of_two(trained, tmp_path):
    output, _ = trained
    settings = ["device=cpu", "epochs=1", "iter_per_epoch=6", f"output_dir={tmp_path}/output"]
    overrides = [word for setting in settings for word in ("-o", f"Global.{setting}")]
    nodes = ["--nnodes", "2", "--nproc_per_node", "1", "--master", f"127.0.0.1:{free_port()}", "--job_id", "toy"]
    with ThreadPoolExecutor(2) as machines:
        done = machines.map(
            lambda rank: launch(tmp_path / f"log_{rank}", [*nodes, "--rank", rank], "train", "-c", CONFIG, *overrides),
            ["0", "1"],
        )
        for finished in done:
            assert finished.returncode == 0, finished.stdout + finished.stderr
    costs = {"time", "ips", "batch_cost", "reader_cost", "eta_seconds"}
    one, two = (
        [
            {name: value for name, value in json.loads(line).items() if name not in costs}
            for line in (directory / "train.jsonl").read_text().splitlines()
        ]
        for directory in (output, tmp_path / "output")
    )
    assert [record["event"] for record in one] == ["train", "epoch", "eval", "exit"]
    assert two == one
    weights = [
        (directory / "epoch_1" / "model.safetensors").read_bytes() for directory in (output, tmp_path / "output")
    ]
    assert weights[0] == weights[1]


def test_processes_that_cannot_reach_each_other_say_so_in_one_line(tmp_path):
    finished = launch(
        tmp_path,
        ["--nproc_per_node", "2"],
        "train",
        *("-c", CONFIG, "-o", "Global.device=cpu", "-o", f"Global.output_dir={tmp_path}/output"),
        GLOO_SOCKET_IFNAME="no_such_network",
    )
    assert finished.returncode != 0  # 6, or the launcher's own code for a process that it ended
    logs = [(tmp_path / f"workerlog.{rank}").read_text() for rank in range(2)]
    line = r"^process \d cannot reach the others: .*no_such_network; .*--host .*GLOO_SOCKET_IFNAME"
    assert any(re.search(line, log, re.MULTILINE) for log in logs)
    assert not any("Traceback (most recent call last):\n  File" in log for log in logs)


@pytest.mark.promise("F23")
@pytest.mark.parametrize(
    ("tool", "device"),
    [("train", "npu"), ("eval", "iluvatar_gpu"), ("eval", "gpu"), ("train", "xpu:1"), ("train", "abacus")],
)
def test_a_device_that_is_not_there_is_one_line(tool, device, tmp_path):
    if device.partition(":")[0] in {name.partition(":")[0] for name in available_devices()}:
        pytest.skip(f"there is {device}")
    finished = run(
        [f"tools/{tool}.py", "-c", CONFIG, "-o", f"Global.device={device}", "-o", f"Global.output_dir={tmp_path}"]
    )
    assert finished.returncode == 2
    there = ", ".join(available_devices())
    assert finished.stderr.splitlines()[-1] == f"Global.device: '{device}' is not on this machine; there is {there}"
    assert "Traceback" not in finished.stderr


def test_only_one_process_logs(trained):
    _, log = trained
    assert len(re.findall(r"\[Eval\]\[Epoch 1\]\[Avg\]", log)) == 1


def test_evaluation_on_two_processes_counts_every_image_once(trained):
    _, log = trained
    assert figures(log)["num_samples"] == "359"


def test_evaluation_on_two_processes_equals_that_on_one(trained):
    output, log = trained
    weights = f"Global.pretrained_model={output}/epoch_1"
    alone = run(["tools/eval.py", "-c", str(output / "config.yaml"), "-o", weights])
    assert alone.returncode == 0, alone.stderr
    together, single = figures(log), figures(alone.stdout)
    assert together.keys() == single.keys()
    for name in ("top1", "top3", "num_samples"):
        assert together[name] == single[name]
    assert float(together["CELoss"]) == pytest.approx(float(single["CELoss"]), abs=2e-5)


def epoch_losses(directory: Path) -> list[float]:
    records = map(json.loads, (directory / "train.jsonl").read_text(encoding="utf-8").splitlines())
    return [record["loss"] for record in records if record["event"] == "epoch"]


@pytest.mark.parametrize(("batch_norm", "tolerance"), [(False, 1e-5), (True, 0.1)])
def test_one_and_two_processes_with_one_global_batch_train_alike(tmp_path, batch_norm, tolerance):
    # The same samples make each update, and gradients are averaged: without batch norm only the order of additions
    # differs. Batch norm takes its statistics from the images of a process, so half as many of them.
    settings = [
        "Global.imports=[toy_arch]",
        "Global.device=cpu",
        "Global.epochs=3",
        "Global.iter_per_epoch=8",
        "Global.eval_during_train=false",
        f"Arch={{name: ToyNet, class_num: 10, dropout: 0, batch_norm: {batch_norm}}}",
        "DataLoader.Train.loader.num_workers=0",
    ]
    toys = str(ROOT / "tests" / "toys")
    for processes in (1, 2):
        here = [
            *settings,
            f"Global.output_dir={tmp_path}/{processes}",
            f"DataLoader.Train.sampler.batch_size={32 // processes}",
        ]
        overrides = ["-c", CONFIG, *(word for setting in here for word in ("-o", setting))]
        finished = launch(tmp_path / "log", ["--nproc_per_node", str(processes)], "train", *overrides, PYTHONPATH=toys)
        assert finished.returncode == 0, finished.stdout + finished.stderr
    alone, together = epoch_losses(tmp_path / "1"), epoch_losses(tmp_path / "2")
    assert len(alone) == 3 and alone[2] < alone[0]
    assert together == pytest.approx(alone, rel=tolerance)
    assert batch_norm == (together != pytest.approx(alone, rel=1e-5))


def counted(text: str) -> list[str]:
    """What the lines of the last evaluation say was counted over all processes, for each k of two."""
    return re.findall(r"\[Eval\].* after all-reduce: (.*)", text)[-2:]


def test_right_images_are_counted_alike_by_one_and_two_processes(trained):
    output, log = trained
    lines = counted(log)
    assert [line.split("=")[0] for line in lines] == ["top1_correct", "top3_correct"]
    for name, line in zip(("top1", "top3"), lines):
        count, total, share = re.fullmatch(rf"{name}_correct=(\d+), tot=(\d+), acc=([\d.]+)%", line).groups()
        assert total == "359"  # of two processes one has an image more
        assert f"{int(count) / 359:.5f}" == figures(log)[name]
        assert share == f"{100 * int(count) / 359:.2f}"
    alone = run(["tools/eval.py", "-c", str(output / "config.yaml"), "-o", f"Global.pretrained_model={output}/epoch_1"])
    assert counted(alone.stdout) == lines
    records = [json.loads(line) for line in (output / "train.jsonl").read_text().splitlines()]
    evaluation = next(record for record in records if record["event"] == "eval")
    assert [f"{name}={evaluation[name]}" for name in ("top1_correct", "top3_correct")] == [
        line.split(",")[0] for line in lines
    ]


def test_images_per_second_of_an_epoch_are_those_of_all_processes(trained):
    output, _ = trained
    records = [json.loads(line) for line in (output / "train.jsonl").read_text().splitlines()]
    # one line for the 6 batches of 2 x 32 images, so its mean cost tells what they took together
    (train,) = [record for record in records if record["event"] == "train"]
    (epoch,) = [record for record in records if record["event"] == "epoch"]
    assert epoch["ips"] == pytest.approx(6 * 64 / (6 * train["batch_cost"]))


def test_a_process_without_any_image_takes_part_in_the_evaluation(trained, tmp_path):
    output, _ = trained
    (tmp_path / "one.txt").write_text("images/3/0003.png 3\n")
    settings = [f"Global.pretrained_model={output}/epoch_1", "Global.device=cpu"]
    settings += [f"Global.output_dir={tmp_path}", f"DataLoader.Eval.dataset.cls_label_path={tmp_path}/one.txt"]
    overrides = [word for setting in settings for word in ("-o", setting)]
    finished = launch(tmp_path / "log", ["--nproc_per_node", "2"], "eval", "-c", CONFIG, *overrides)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert figures(finished.stdout + finished.stderr)["num_samples"] == "1"


def test_the_checkpoint_of_two_processes_is_one(trained):
    output, _ = trained
    assert json.loads((output / "epoch_1" / "state.json").read_text())["step"] == 6


OVERFLOW_ON_ONE = """
import json
import paddle
from ppcls.engine.agreement import Agreement
from ppcls.engine.loss_scale import LossScaler
from ppcls.engine.precision import Precision
from ppcls.utils import dist

dist.connect()
weight = paddle.create_parameter([2], "float32", default_initializer=paddle.nn.initializer.Constant(1.0))
optimizer = paddle.optimizer.SGD(0.5, [weight])
precision = Precision(scaler=LossScaler(1024.0, is_dynamic=True))
agreement = Agreement()
agreement.ask("overflow", lambda: overflow)
for batch in range(2):
    precision.backward(2 * weight.sum())
    if batch == 0 and dist.rank() == 1:
        weight.grad.set_value(paddle.to_tensor([float("inf"), 1.0]))
    overflow = not precision.unscale([weight])
    agreement.settle()
    precision.update(optimizer, "overflow" in agreement)
told = dist.gathered([weight.tolist(), precision.figures()])
if dist.is_main():
    print("told", json.dumps(told))
"""


@pytest.mark.promise("F21")
def test_a_gradient_that_overflows_in_one_process_is_skipped_by_all(tmp_path):
    (tmp_path / "overflow.py").write_text(OVERFLOW_ON_ONE)
    launcher = ["-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--log_dir", str(tmp_path)]
    finished = run([*launcher, str(tmp_path / "overflow.py")], PYTHONPATH=str(ROOT))
    assert finished.returncode == 0, finished.stdout + finished.stderr
    told = json.loads(re.findall("told (.*)", finished.stdout)[-1])
    # one of two updates: 1 - 0.5 * 2, and the scale halved once
    assert told == [[[0.0, 0.0], {"loss_scale": 512.0, "skipped_updates": 1}]] * 2


@pytest.mark.skipif(paddle.is_compiled_with_cuda(), reason="there may be GPUs here")
def test_paddleclas_command_on_a_machine_without_gpus_says_which_devices_there_are(tmp_path):
    finished = launch(
        tmp_path,
        ["--gpus=0,1,2,3"],
        "train",
        "-c",
        "ppcls/configs/ImageNet/DenseNet/DenseNet121.yaml",
        *("-o", "Arch.pretrained=False", "-o", "Global.device=gpu"),
        CUDA_VISIBLE_DEVICES="0,1,2,3",
    )
    assert finished.returncode != 0  # 2, or the launcher's own code for a process that it ended
    logs = [(tmp_path / f"workerlog.{rank}").read_text() for rank in range(4)]
    # The first process to say it ends the others, some of them before they could.
    assert any(log.splitlines()[-1:] == ["Global.device: 'gpu' is not on this machine; there is cpu"] for log in logs)
    # Paddle writes a stack of C++ when the launcher ends a process; one of Python would be ours.
    assert not any("Traceback (most recent call last):\n  File" in log for log in logs)
