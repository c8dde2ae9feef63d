# SPDX-License-Identifier: Apache-2.0
"""The device that a run computes on."""

from __future__ import annotations

import paddle

from ppcls.utils.errors import ConfigError


def select_device(name: str) -> str:
    """Make the named device the current one and return its full name, such as ``gpu:0``.

    Raises:
        ConfigError: it is not on this machine; lists those that are.
    """
    try:
        paddle.set_device(name)
        return paddle.get_device()
    except (ValueError, RuntimeError, OSError) as error:
        raise ConfigError(
            f"Global.device: '{name}' is not on this machine; there is {', '.join(available_devices())}"
        ) from error


def available_devices() -> list[str]:
    """Every device that the installed Paddle can use here."""
    return ["cpu", *(name for name in _listed() if name != "cpu")]


def _listed() -> list[str]:
    return [*paddle.device.get_available_device(), *(paddle.device.get_available_custom_device() or [])]
