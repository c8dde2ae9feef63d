# SPDX-License-Identifier: Apache-2.0
"""Two processes train together several times; each tells what it wrote, sent and received.

The arguments: a configuration, an address with weights and data, and a folder, which the answers go to as
``<rank>.json``.
"""

import json
import os
import socket
import stat
import sys
from pathlib import Path

import paddle  # noqa: F401  (before the processes part)
from group import run_group

from ppcls.config import load_config
from ppcls.engine import Engine
from ppcls.engine.callbacks import Callback
from ppcls.utils import dist
from ppcls.utils.errors import PpclsError
from ppcls.utils.logger import stop_logging

CONFIG, ADDRESS, FOLDER = sys.argv[1:]
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
TCP_INFO_SIZE, BYTES_RECEIVED = 192, slice(128, 136)
"""Of the kernel's ``struct tcp_info``."""


def watch_writes(written):
    """Note every file and directory that this process makes, opens for writing, renames or removes from now on."""

    def on_event(event, arguments):
        if event == "open" and isinstance(arguments[0], (str, bytes)) and (arguments[2] or 0) & WRITES:
            written.append(os.fsdecode(arguments[0]))
        if event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link"):
            written.append(os.fsdecode(arguments[1 if event in ("os.rename", "os.symlink", "os.link") else 0]))

    sys.addaudithook(on_event)


def bytes_received():
    """What came in over all connections of this process so far."""
    total = 0
    for number in os.listdir("/proc/self/fd"):
        try:
            if not stat.S_ISSOCK(os.fstat(int(number)).st_mode):
                continue
            with socket.socket(fileno=os.dup(int(number))) as connection:
                info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_SIZE)
        except OSError:
            continue  # gone by now, or not of TCP
        total += int.from_bytes(info[BYTES_RECEIVED], sys.byteorder)
    return total


class Traffic(Callback):
    """What came in after each batch."""

    def __init__(self):
        self.bytes = []

    def on_train_start(self, state):
        self.bytes.append(bytes_received())

    def on_step_end(self, state, output):
        self.bytes.append(bytes_received())


def train(name, *overrides):
    """The parts after a training into the folder ``name``."""
    engine = Engine(load_config(CONFIG, [f"Global.output_dir={FOLDER}/{name}", "Global.epochs=1", *overrides]))
    traffic = Traffic()
    engine.parts.callbacks.append(traffic)
    try:
        engine.train()
    finally:
        stop_logging()
    return engine.parts, traffic.bytes


def work():
    written, told = [], {}
    watch_writes(written)
    train(
        "fetched",
        f"Global.pretrained_model={ADDRESS}/weights.safetensors",
        f"DataLoader.Train.dataset.image_root={ADDRESS}/data.zip!/data",
        f"DataLoader.Train.dataset.cls_label_path={ADDRESS}/data.zip!/data/train.txt",
        f"DataLoader.Eval.dataset.cls_label_path={ADDRESS}/val.txt",
    )
    told["written"] = list(dict.fromkeys(written))

    parts, told["received"] = train(
        "accumulated",
        "Global.update_freq=4",
        "Global.eval_during_train=false",
        "Arch.width=64",
        "DataLoader.Train.sampler.batch_size=2",
    )
    told["gradient bytes"] = sum(weight.size * 4 for weight in parts.model.parameters() if weight.trainable)

    try:
        train("statistics", "Arch.use_sync_bn=true")
    except PpclsError as error:
        told["sync BN"] = [type(error).__name__, str(error)]
    Path(FOLDER, f"{dist.rank()}.json").write_text(json.dumps(told))


run_group(2, work)
