# SPDX-License-Identifier: Apache-2.0
"""The manifest of a published directory: sizes and sha256 of its files, and the sha256 of what it says itself.

Its text follows from what it says, byte for byte, so that no bit of it can change unnoticed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppcls.utils.errors import StorageError
from ppcls.utils.strict_json import read_json

MANIFEST = "manifest.json"
_MAX_BYTES = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Entry:
    """What is known of one file.

    Attributes:
        size: in bytes.
        sha256: as hexadecimal digits.
    """

    size: int
    sha256: str


def manifest_text(kind: str, files: Mapping[str, Entry], about: Mapping[str, Any] | None = None) -> str:
    """Return the manifest of a directory of some kind with these files, and what else is to be known of it."""
    said: dict[str, Any] = {"kind": kind, "files": {name: vars(entry) for name, entry in files.items()}}
    if about:
        said["about"] = about
    digest = hashlib.sha256(json.dumps(said, indent=1).encode()).hexdigest()
    return json.dumps({**said, "sha256": digest}, indent=1)


def read_manifest(directory: str | os.PathLike) -> tuple[str, dict[str, Entry], dict[str, Any]]:
    """Return what the manifest of a directory says: kind, files and what else; the files are not looked at.

    Raises:
        StorageError: there is no manifest, it is none, or it is not as it was written.
    """
    path = Path(directory) / MANIFEST
    try:
        said = read_json(path, _MAX_BYTES)
    except FileNotFoundError:
        raise StorageError(f"{directory}: not complete, it has no {MANIFEST}") from None
    try:
        kind, files, about = _checked(said)
        # Manifests of ppcls before 1.0 have no digest of their own.
        is_altered = "sha256" in said and path.read_bytes() != manifest_text(kind, files, about).encode()
    except (OSError, ValueError) as error:
        raise StorageError(f"{path}: cannot be read ({error})") from error
    if is_altered:
        raise StorageError(f"{path}: altered, its text is not the one that was written")
    return kind, files, about


def _checked(said: Any) -> tuple[str, dict[str, Entry], dict[str, Any]]:
    if not isinstance(said, dict) or not said.keys() <= {"kind", "files", "about", "sha256"}:
        raise ValueError("not a manifest")
    kind, files, about = said.get("kind", ""), said.get("files"), said.get("about", {})
    if (
        not isinstance(kind, str)
        or not kind.isprintable()
        or not all(isinstance(each, dict) for each in (files, about))
    ):
        raise ValueError("not a manifest")
    return kind, {name: _entry(name, said) for name, said in files.items()}, about


def _entry(name: str, said: Any) -> Entry:
    if not name or not name.isprintable():
        raise ValueError(f"{name!r:.80} names no file")
    if not isinstance(said, dict) or said.keys() != {"size", "sha256"}:
        raise ValueError(f"size and sha256 of {name:.80} are not there")
    size, digest = said["size"], said["sha256"]
    if type(size) is not int or size < 0 or not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        raise ValueError(f"size and sha256 of {name:.80} are none")
    return Entry(size, digest)
