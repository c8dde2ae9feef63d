# SPDX-License-Identifier: Apache-2.0
"""JSON from a file that may be damaged: read within limits, or refused in one line."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from ppcls.utils.errors import StorageError

MAX_DIGITS = 19
"""Of a whole number: what 64 bits hold."""


def read_json(path: str | os.PathLike, max_bytes: int) -> Any:
    """Return what a JSON file holds.

    Args:
        path: the file; a link is not followed.
        max_bytes: a larger file is not read.

    Raises:
        FileNotFoundError: there is no such file.
        StorageError: it cannot be read; is no JSON in UTF-8; or has a key twice, a number that no computer word
            holds, or half a character.
    """
    path = Path(path)
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > max_bytes:
            raise ValueError(f"not a file of at most {max_bytes >> 20} MiB")
        return parsed(path.read_bytes())
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise StorageError(f"{path}: cannot be read ({' '.join(str(error).split())[:200]})") from error


def parsed(content: bytes) -> Any:
    """Return what JSON text holds.

    Raises:
        ValueError: as `read_json` has it.
        RecursionError: it is nested too deeply.
    """
    text = content.decode("utf-8")
    found = json.loads(text, object_pairs_hook=_without_repeats, parse_int=_whole_number)
    if "\\u" in text:
        json.dumps(found, ensure_ascii=False).encode("utf-8")  # half a character, which nothing could print
    return found


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r:.80} is there twice")
    return found


def _whole_number(text: str) -> int:
    if len(text.lstrip("-")) > MAX_DIGITS:
        raise ValueError(f"the number {text[:MAX_DIGITS]}... is too large")
    return int(text)
