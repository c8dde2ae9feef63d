# SPDX-License-Identifier: Apache-2.0
"""Object storage through fsspec: one place there, what can be done with it, and failures of one line."""

from __future__ import annotations

import errno
import logging
import os
import re
import sys
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ppcls.utils.archive import parts_of
from ppcls.utils.download import without_secrets
from ppcls.utils.errors import ConfigError, DataError, PpclsError, StorageError

CONNECT_TIMEOUT_SECONDS = 10
READ_TIMEOUT_SECONDS = 60
NUM_ATTEMPTS = 4
FILES_AT_ONCE = 256
"""How many files of a folder are asked for before the bar moves."""

_S3 = ("s3", "s3a")
_SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_REFUSED = {
    "file": "a local file is given as a plain path",
    "local": "a local file is given as a plain path",
    "http": "object storage is wanted here, not a web page; write s3:// or the like",
    "https": "object storage is wanted here, not a web page; write s3:// or the like",
    "obs": "write s3:// instead, and AWS_ENDPOINT_URL=https://obs.<region>.myhuaweicloud.com in the environment",
}
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}
_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound")
_NO_CONNECTION = ("ConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "HTTPClientError", "TimeoutError")


class Remote:
    """A place in object storage; names are relative to it, with ``/`` between their parts.

    Credentials and endpoint come from the environment and the store's own files (``~/.aws``), never from the URL.

    Args:
        url: such as ``s3://bucket/key``, of any scheme that fsspec knows.

    Raises:
        ConfigError: not such a URL, or the package for its scheme is not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = without_secrets(url).rstrip("/")
        scheme = urllib.parse.urlsplit(url).scheme
        if "::" in url:
            raise ConfigError(f"{self.url}: chained addresses are not supported; for an archive write URL!/folder")
        if scheme in _REFUSED:
            raise ConfigError(f"{self.url}: {_REFUSED[scheme]}")
        if "@" in urllib.parse.urlsplit(url).netloc:
            raise ConfigError(f"{self.url}: credentials do not belong in an address; set {_SECRETS[0]} and the like")
        self.is_s3 = scheme in _S3
        if self.is_s3 and not urllib.parse.urlsplit(url).netloc:
            raise ConfigError(f"{self.url}: names no bucket; write {scheme}://bucket/name")
        with self._failures():
            self.fs, self.path = _opened(url.rstrip("/"), scheme, self.url)

    def identity(self) -> str | None:
        """Return what changes when this file does, its size with the store's digest or time; ``None`` for a folder.

        Raises:
            StorageError: there is nothing, or it cannot be asked.
        """
        with self._failures():
            info = self.fs.info(self.path)
            return _identity(info) if info["type"] == "file" else None

    def files(self, name: str = "") -> dict[str, tuple[int, str]]:
        """Return size in bytes and identity of every file below a folder, by name relative to it; {} when none.

        Raises:
            StorageError: they cannot be listed.
            DataError: a name would lead out of a local folder.
        """
        folder = self._place(name)
        with self._failures():
            try:
                found = self.fs.find(folder, detail=True)
            except FileNotFoundError as error:
                if "bucket" in str(error).lower():
                    raise
                found = {}
        files = {}
        for path, info in sorted(found.items()):
            if path.endswith("/") or info["type"] != "file":
                continue  # a key that stands for a folder
            relative = path[len(folder) + 1 :]
            try:
                if parts_of(relative):
                    files[relative] = (int(info["size"]), _identity(info))
            except ValueError as error:
                raise DataError(f"{self.url}: {path!r:.200} {error}; rename it") from error
        return files

    def children(self) -> list[str]:
        """Return the names of the files and folders right below this place; [] when there are none.

        Raises:
            StorageError: they cannot be listed.
        """
        with self._failures():
            try:
                found = self.fs.ls(self.path, detail=False)
            except FileNotFoundError:
                return []
            return sorted({path.rstrip("/").rpartition("/")[2] for path in found})

    def read(self, name: str) -> bytes | None:
        """Return a small file, or ``None`` when there is none.

        Raises:
            StorageError: it cannot be read.
        """
        with self._failures():
            try:
                return self.fs.cat_file(self._place(name))
            except FileNotFoundError:
                return None

    def write(self, name: str, data: bytes) -> None:
        """Write a small file.

        Raises:
            StorageError: it cannot be written.
        """
        with self._failures():
            self.fs.pipe_file(self._place(name), data)

    def download(self, target: Path) -> None:
        """Copy this very file to a local one, with a bar.

        Raises:
            StorageError: it cannot be read, or did not arrive whole.
        """
        from fsspec.callbacks import TqdmCallback

        label = self.url.rpartition("/")[2]
        options = {"desc": label, "unit": "B", "unit_scale": True, "disable": not sys.stderr.isatty()}
        with self._failures():
            size = self.fs.info(self.path)["size"]
            with TqdmCallback(tqdm_kwargs=options, tqdm_cls=tqdm) as callback:
                self.fs.get_file(self.path, os.fspath(target), callback=callback)
        self._require_whole(target, size, self.url)

    def download_folder(self, target: Path, files: dict[str, tuple[int, str]], name: str = "") -> None:
        """Copy the files of a folder, as `files` gives them, to a local folder, with a bar.

        Raises:
            StorageError: one cannot be read, or did not arrive whole.
        """
        names = iter(files)
        label = (name or self.path).rpartition("/")[2]
        with tqdm(desc=label, total=len(files), unit="files", disable=not sys.stderr.isatty()) as bar:
            while some := list(islice(names, FILES_AT_ONCE)):
                with self._failures():
                    places = [self._place(f"{name}/{file}".lstrip("/")) for file in some]
                    self.fs.get(places, [os.fspath(target / file) for file in some])
                for file in some:
                    self._require_whole(target / file, files[file][0], f"{self.url}/{file}")
                bar.update(len(some))

    def upload(self, source: Path, name: str) -> None:
        """Copy a local file there.

        Raises:
            StorageError: it cannot be written.
            FileNotFoundError: there is no such local file.
        """
        source.stat()  # what is missing here is no failure of the store
        with self._failures():
            self.fs.put_file(os.fspath(source), self._place(name))

    def remove(self, name: str) -> None:
        """Remove a file; nothing when there is none.

        Raises:
            StorageError: it cannot be removed.
        """
        with self._failures():
            try:
                self.fs.rm_file(self._place(name))
            except FileNotFoundError:
                return

    def _place(self, name: str) -> str:
        return f"{self.path}/{name}" if name else self.path

    def _require_whole(self, target: Path, size: int, shown: str) -> None:
        received = target.stat().st_size if target.exists() else 0
        if received != size:
            raise StorageError(f"{shown}: {received} of {size} bytes arrived; start again")

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Every store has exceptions of its own, so whatever it raises becomes a `StorageError` here."""
        try:
            yield
        except PpclsError:
            raise
        except Exception as error:
            raise StorageError(f"{self.url}: {self._reason(error)}") from error

    def _reason(self, error: Exception) -> str:
        kinds = {kind.__name__ for kind in type(error).__mro__}
        said = _tame(getattr(error, "strerror", None) or str(error)) or type(error).__name__
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            return f"cannot be kept here ({said}); let Global.cache_dir name another directory"
        if kinds.intersection(_NO_CREDENTIALS):
            return f"no credentials ({said}); set {_SECRETS[0]} and {_SECRETS[1]}, or AWS_PROFILE"
        if isinstance(error, FileNotFoundError):
            return f"there is no such thing ({said}); check bucket, name and AWS_ENDPOINT_URL"
        if isinstance(error, PermissionError):
            which = f"{_SECRETS[0]}, {_SECRETS[1]} and the rights they have" if self.is_s3 else "the credentials"
            return f"access is refused ({said}); check {which}"
        if kinds.intersection(_NO_CONNECTION):
            where = " and AWS_ENDPOINT_URL" if self.is_s3 else ""
            return f"no connection ({said}); check the network{where}"
        return f"the store failed ({said})"


def _opened(url: str, scheme: str, shown: str) -> tuple[Any, str]:
    options: dict[str, Any] = {}
    if scheme in (*_S3, "gs", "gcs"):
        options["use_listings_cache"] = False  # what another machine has written has to be seen
    if scheme in _S3:
        # Newer clients add checksums that stores other than Amazon's often refuse; what is set outside wins.
        os.environ.setdefault("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
        os.environ.setdefault("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")
        options["config_kwargs"] = {
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "read_timeout": READ_TIMEOUT_SECONDS,
            "retries": {"max_attempts": NUM_ATTEMPTS, "mode": "standard"},
        }
    for name in ("aiobotocore", "botocore", "s3fs"):
        # Other packages set the root logger to INFO; credentials are no subject there, let alone below.
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        # Imported here: a run without such an address does not pay for it, and need not have it.
        from fsspec.core import url_to_fs

        fs, path = url_to_fs(url, **options)
    except ImportError as error:
        package = _PACKAGES.get(scheme, "fsspec")
        advice = f"pip install {package}" if scheme in _PACKAGES or error.name == "fsspec" else _tame(str(error))
        raise ConfigError(f"{shown}: {scheme}:// needs a package that is not installed; {advice}") from error
    except ValueError as error:
        raise ConfigError(f"{shown}: {scheme}:// is not known; write s3://, gs:// or another of fsspec's") from error
    if scheme in _S3:
        fs.retries = NUM_ATTEMPTS
    return fs, path.rstrip("/")


def _identity(info: dict[str, Any]) -> str:
    marks = ("ETag", "etag", "md5Hash", "generation", "LastModified", "last_modified", "updated", "mtime", "created")
    mark = next((info[name] for name in marks if info.get(name)), "")
    return f"{info['size']} {mark}"


def _tame(text: str) -> str:
    """What a store says, as it may be shown: one line, no signed address, no key."""
    text = re.sub(r"\w{1,20}://[^\s\"']+", lambda match: without_secrets(match[0]), " ".join(text.split()))
    for name in _SECRETS:
        if secret := os.environ.get(name):
            text = text.replace(secret, "***")
    return text[:200]
