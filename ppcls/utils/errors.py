# SPDX-License-Identifier: Apache-2.0
"""Expected failures: each is one line that says where, what and what to do instead, with its exit code."""

from __future__ import annotations

import re
import signal


class PpclsError(Exception):
    """A failure that the person at the keyboard can mend; tools print it as one line."""

    exit_code = 1


class Stopped(KeyboardInterrupt):
    """A signal has ended the work. As after Ctrl-C, what catches exceptions lets it pass.

    Args:
        number: of the signal. Paddle 3.3.1 catches everything while it traces a graph, and makes another one of the
            same class with a text of its own, in which the number stands.
    """

    def __init__(self, number: int | str) -> None:
        if isinstance(number, str):
            found = re.search(r"stopped by signal (\d+)", number)
            number = int(found[1]) if found else signal.SIGTERM
        super().__init__(f"stopped by signal {number:d} ({signal.Signals(number).name})")
        self.number = number

    @property
    def exit_code(self) -> int:
        """As a shell gives it for a process that a signal has ended."""
        return 128 + self.number


class ConfigError(PpclsError):
    """A configuration or command line that cannot be obeyed; lists every problem found, one a line."""

    exit_code = 2

    def __init__(self, problems: str | list[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class DataError(PpclsError):
    """A data set, list file, label or image that cannot be used."""

    exit_code = 3


class NumericsError(PpclsError, FloatingPointError):
    """A loss or weight that is not finite."""

    exit_code = 4


class StorageError(PpclsError):
    """A file or directory that cannot be written, or a stored file that does not verify."""

    exit_code = 5


class PeerError(PpclsError):
    """Another process of a distributed run failed."""

    exit_code = 6


class ParityError(PpclsError):
    """An exported model that does not give the answers of the trained one."""

    exit_code = 7
