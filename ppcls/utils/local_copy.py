# SPDX-License-Identifier: Apache-2.0
"""Where a place named in a YAML file is on this machine: fetched and unpacked into the cache if need be, once.

A place is a path, or a URL (http, https, s3, gs, ...). It may name

* a file: ``s3://bucket/train_list.txt``
* a folder, in object storage: ``s3://bucket/images/``
* an archive, which is unpacked: ``s3://bucket/data.zip``, ``https://host/data.tar.gz``, ``/mnt/share/data.tar``
* something in an archive, behind ``!/``: ``s3://bucket/data.zip!/data/train``

``#sha256=...`` behind a file or archive's URL gives its expected digest. What changes in object storage is fetched
anew; an http(s) address is fetched once and for all.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ppcls.utils import archive
from ppcls.utils.download import (
    cache_dir,
    cache_name,
    checked,
    digest_path,
    expected_digest,
    fetch,
    is_url,
    locked,
    without_secrets,
)
from ppcls.utils.errors import DataError, StorageError
from ppcls.utils.remote import Remote
from ppcls.utils.storage import ensure_writable
from ppcls.utils.storage import sha256 as sha256_of

logger = logging.getLogger(__name__)

INSIDE = "!/"
_WEB = ("http", "https")


def local_path(place: str) -> str:
    """Return the local path of a place; a plain path, unless it is an archive's, comes back as it is.

    Raises:
        ConfigError: the URL is none, or needs a package that is not installed.
        StorageError: it cannot be fetched or kept.
        DataError: an archive is damaged or refused, or lacks what is named behind ``!/``.
    """
    whole, inside = archive_and_inside(place)
    if _is_archive(whole) and (is_url(whole) or os.path.isfile(whole)):
        folder = _unpacked_from_url(whole) if is_url(whole) else _unpacked_from_path(whole)
        return _inside(folder, inside, place)
    if not is_url(place):
        return place
    address, _, fragment = place.partition("#sha256=")
    if urllib.parse.urlsplit(place).scheme in _WEB:
        return str(fetch(place))
    remote = Remote(address)
    identity = remote.identity()
    if identity is None:
        return str(_fetched_folder(remote))
    expected = expected_digest(f"sha256={fragment}" if fragment else "", None, remote.url)
    return str(_fetched_file(remote, identity, expected))


def local_folder(place: str) -> str:
    """Return the local path of a place that has to be a folder; as `local_path`.

    Raises:
        DataError: the URL names a single file.
    """
    path = local_path(place)
    if path != place and not os.path.isdir(path):
        endings = ", ".join(archive.ENDINGS)
        raise DataError(f"{without_secrets(place)}: is one file, not a folder and not an archive ({endings})")
    return path


def archive_and_inside(place: str) -> tuple[str, str]:
    """Return a place's archive and what is named in it, behind ``!/``; the place and "" when nothing is."""
    whole, mark, inside = place.rpartition(INSIDE)
    return (whole, inside) if mark and _is_archive(whole) else (place, "")


def _is_archive(place: str) -> bool:
    return archive.is_archive(urllib.parse.urlsplit(place).path if is_url(place) else place)


def _inside(folder: Path, inside: str, place: str) -> str:
    try:
        path = folder.joinpath(*archive.parts_of(inside))
    except ValueError as error:
        raise DataError(f"{without_secrets(place)}: what is named behind {INSIDE} must lie in the archive") from error
    if not path.exists():
        some = ", ".join(sorted(entry.name for entry in folder.iterdir())[:5])
        whole = without_secrets(place.rpartition(INSIDE)[0])
        raise DataError(f"{whole}: there is no {inside!r} in this archive; it begins with {some}")
    return str(path)


def _unpacked_from_path(place: str) -> Path:
    found = os.stat(place)
    key = f"{os.path.realpath(place)} {found.st_size} {found.st_mtime_ns}"
    return _made_once(_stem(place), key, lambda staging: archive.unpack(place, staging / "made"))


def _unpacked_from_url(url: str) -> Path:
    shown = without_secrets(url)
    name = _stem(urllib.parse.unquote(urllib.parse.urlsplit(url).path))
    address, _, fragment = url.partition("#sha256=")
    expected = expected_digest(f"sha256={fragment}" if fragment else "", None, shown)
    if urllib.parse.urlsplit(url).scheme in _WEB:
        key = address

        def get(staging: Path) -> tuple[Path, str]:
            path = fetch(url, directory=staging)
            return path, digest_path(path).read_text(encoding="ascii").strip()
    else:
        remote = Remote(address)
        key = f"{address} {remote.identity()}"

        def get(staging: Path) -> tuple[Path, str]:
            return _downloaded(remote, staging / "archive", expected)

    def make(staging: Path) -> None:
        started = time.monotonic()
        logger.info("%s: fetching and unpacking it", shown)
        path, digest = get(staging)
        archive.unpack(path, staging / "made", shown)
        (staging / "digest").write_text(digest + "\n", encoding="ascii")
        logger.info("%s: done in %.0f s", shown, time.monotonic() - started)

    return _made_once(name, f"{key} {expected or ''}".rstrip(), make)


def _fetched_folder(remote: Remote) -> Path:
    files = remote.files()
    if not files:
        raise StorageError(f"{remote.url}: there is nothing in it; check bucket, name and AWS_ENDPOINT_URL")
    key = f"{remote.url} {json.dumps(files, sort_keys=True)}"

    def make(staging: Path) -> None:
        started = time.monotonic()
        logger.info("%s: fetching %d files", remote.url, len(files))
        remote.download_folder(staging / "made", files)
        logger.info("%s: done in %.0f s", remote.url, time.monotonic() - started)

    return _made_once(remote.url.rpartition("/")[2], key, make)


def _fetched_file(remote: Remote, identity: str, expected: str | None) -> Path:
    def make(staging: Path) -> None:
        _, digest = _downloaded(remote, staging / "made", expected)
        (staging / "digest").write_text(digest + "\n", encoding="ascii")

    path = _made_once(remote.url.rpartition("/")[2], f"{remote.url} {identity}", make)
    with _keeping(path):
        return checked(path, expected)


def _downloaded(remote: Remote, target: Path, expected: str | None) -> tuple[Path, str]:
    remote.download(target)
    digest = sha256_of(target)
    if expected not in (None, digest):
        raise StorageError(f"{remote.url}: not the expected file, its sha256 is {digest} instead of {expected}")
    return target, digest


def _made_once(name: str, key: str, make: Callable[[Path], None]) -> Path:
    """Return what ``make`` leaves as ``made`` in a directory beside, with its ``digest``; one process makes it."""
    final = cache_dir() / cache_name(name, key)
    with _keeping(final):
        if not final.exists():
            ensure_writable(final.parent)
            with locked(final):
                if not final.exists():  # unless another process made it meanwhile
                    _make(final, make)
    return final


def _make(final: Path, make: Callable[[Path], None]) -> None:
    # The lock is ours, so what is there now was left by a process that was killed.
    staging = final.with_name(f".{final.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.mkdir()
        make(staging)
        if (staging / "digest").exists():
            os.replace(staging / "digest", digest_path(final))
        os.replace(staging / "made", final)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def _keeping(final: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise StorageError(
            f"{final}: cannot be kept ({reason}); let Global.cache_dir or PPCLS_CACHE name another directory"
        ) from error


def _stem(path: str) -> str:
    name = os.path.basename(path)
    ending = max((ending for ending in archive.ENDINGS if name.lower().endswith(ending)), key=len, default="")
    return name[: len(name) - len(ending)] + "_unpacked"
