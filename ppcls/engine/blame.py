# SPDX-License-Identifier: Apache-2.0
"""Who is told of what a part refuses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ppcls.config.registry import Call
from ppcls.utils.errors import ConfigError, DataError


@contextmanager
def blamed_on(call: Call | float, section: str) -> Iterator[None]:
    """What a part refuses (``ValueError``, `DataError`) is an error of the block that asks for it.

    Raises:
        ConfigError: in place of a ``ValueError``.
        DataError: in place of another one, with the block's place.
    """
    where = f"{call.where}: {section}" if isinstance(call, Call) else section
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"{where}: {' '.join(str(error).split())}") from error
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
