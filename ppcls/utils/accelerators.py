# SPDX-License-Identifier: Apache-2.0
"""The devices that a launcher can hand out; asked of Paddle in a process of its own, which is not kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ppcls.utils.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
ASK_SECONDS = 120


@dataclass(frozen=True)
class Accelerators:
    """What is in this machine beside its CPU.

    Attributes:
        labels: their numbers, as ``CUDA_VISIBLE_DEVICES`` and its like give them.
        variable: what tells a process which of them, counted from 0, are its own.
        environment: what else it has to be told.
    """

    labels: list[str] = field(default_factory=list)
    variable: str = ""
    environment: dict[str, str] = field(default_factory=dict)

    def shares(self, wanted: str | None, num_processes: int | None) -> list[dict[str, str]]:
        """Return the environment of each process on this machine: its devices, or gloo on the CPU.

        Args:
            wanted: numbers separated by commas; None for as many as there are processes.
            num_processes: None for one on each device.

        Raises:
            ConfigError: there are not these devices, or not as many as processes.
        """
        if not self.labels and wanted is None:
            return [{"PADDLE_DISTRI_BACKEND": "gloo"}] * (num_processes or 1)
        chosen = self.labels[:num_processes] if wanted is None else [label.strip() for label in wanted.split(",")]
        if missing := [label for label in chosen if label not in self.labels]:
            there = f"devices {', '.join(self.labels)}" if self.labels else "no device but the CPU (--devices cpu)"
            raise ConfigError(f"--devices: {', '.join(missing)} not on this machine; there is {there}")
        number = num_processes or len(chosen)
        indices = [str(self.labels.index(label)) for label in chosen]
        if number == 1:
            return [{**self.environment, self.variable: ",".join(indices)}]
        if number != len(chosen):
            raise ConfigError(
                f"--nproc_per_node: {number} processes, but {len(chosen)} devices ({', '.join(chosen)}); "
                "each needs one of its own"
            )
        return [{**self.environment, self.variable: index} for index in indices]


def accelerators() -> Accelerators:
    """Ask Paddle which accelerators there are; takes seconds, as it has to be imported.

    Raises:
        ConfigError: Paddle cannot say.
    """
    done = subprocess.run(
        [sys.executable, "-m", __name__],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=ASK_SECONDS,
        check=False,
    )
    try:
        return Accelerators(**json.loads(done.stdout.splitlines()[-1]))
    except (ValueError, IndexError, TypeError):
        last = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        raise ConfigError(f"--devices: Paddle cannot say which devices there are ({last}); is it installed?") from None


def _found() -> Accelerators:
    import paddle
    from paddle.distributed.launch.context.device import Device, DeviceType

    listed = [*paddle.device.get_available_device(), *(paddle.device.get_available_custom_device() or [])]
    number = sum(name.partition(":")[0] != "cpu" for name in listed)
    device = Device.parse_device()
    is_custom = device.dtype == DeviceType.CUSTOM_DEVICE
    # A variable such as CUDA_VISIBLE_DEVICES is taken at its word there; what does not exist is left out here.
    return Accelerators(
        [label for label in device.labels if label][:number],
        device.get_selected_device_key(),
        device.get_custom_device_envs() if is_custom else {},
    )


if __name__ == "__main__":
    print(json.dumps(asdict(_found())))
