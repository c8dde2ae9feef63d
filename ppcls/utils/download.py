# SPDX-License-Identifier: Apache-2.0
"""Files from the network, kept in a cache: whole, checked, and fetched by one process at a time."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import http.client
import logging
import os
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tqdm import tqdm

from ppcls.utils.errors import ConfigError, StorageError
from ppcls.utils.storage import ensure_writable
from ppcls.utils.storage import sha256 as sha256_of

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 30
NUM_ATTEMPTS = 3
FIRST_WAIT_SECONDS = 1.0
_BLOCK_BYTES = 1 << 18
# A scheme is short; looking for a longer one in a million letters takes hours. A password ends at the last @ before
# the path, as `urllib.parse` splits it.
_URL = re.compile(r"(\w{1,20}://)([^/?#\s]*@)?([^?#\s]*)(\?[^#\s]*)?")
_chosen_directory: str | None = None


def is_url(place: str | os.PathLike) -> bool:
    """Return whether a place is written with a scheme (``http://...``) and is not a path."""
    return isinstance(place, str) and "://" in place


def without_secrets(url: str) -> str:
    """Return a URL as it may be shown: no user, password, query (which may be signed) or fragment."""
    if not is_url(url):
        return url
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def masked(text: str) -> str:
    """Return a text in which the user, the password and the query of every URL are replaced by ``***``."""
    return _URL.sub(_masked_url, text)


def _masked_url(match: re.Match) -> str:
    start, credentials, place, query = match.groups()
    return f"{start}{'***@' if credentials else ''}{place}{'?***' if query else ''}"


def use_cache_dir(directory: str | None) -> None:
    """Keep what is fetched from now on in this directory; ``None`` goes back to the default."""
    global _chosen_directory
    _chosen_directory = directory


def cache_dir() -> Path:
    """Return where fetched files are kept: what was chosen, ``PPCLS_CACHE``, or ``~/.cache/ppcls``."""
    return Path(_chosen_directory or os.environ.get("PPCLS_CACHE") or "~/.cache/ppcls").expanduser()


def fetch(url: str, sha256: str | None = None, directory: str | os.PathLike | None = None) -> Path:
    """Return the local copy of a file, downloading it unless the cache has it.

    The digest of the first download is kept beside the file and checked on every later use. Several
    processes may ask at once: one downloads, the others wait.

    Args:
        url: http or https; ``#sha256=<64 hexadecimal digits>`` at its end gives the expected digest.
        sha256: the expected digest, if known.
        directory: where it is kept, instead of `cache_dir`.

    Raises:
        ConfigError: not an http(s) URL, or a digest that is none.
        StorageError: it cannot be downloaded or kept, or is not the expected file.
    """
    shown = without_secrets(url)
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{shown}: only http:// and https:// addresses are downloaded; give a file as a plain path")
    expected = expected_digest(parts.fragment, sha256, shown)
    final = (Path(directory) if directory else cache_dir()) / _cache_name(parts)
    try:
        if not final.exists():
            ensure_writable(final.parent)
            with locked(final):
                if not final.exists():  # unless another process fetched it meanwhile
                    advice = "download it elsewhere and give its path"
                    if directory is None:
                        advice += f", or put it at {final}"
                    _download(parts, shown, final, expected, advice)
        return checked(final, expected)
    except OSError as error:
        reason = error.strerror or error
        raise StorageError(
            f"{final}: cannot be kept ({reason}); let Global.cache_dir or PPCLS_CACHE name another directory"
        ) from error


class _TransferError(Exception):
    """The network failed; ``is_final`` where trying again cannot help."""

    def __init__(self, reason: object, is_final: bool = False) -> None:
        super().__init__(str(reason))
        self.is_final = is_final


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http(s) only, and never from https back to http."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        """Return the next request.

        Raises:
            _TransferError: the redirect leads away from http(s), or from https to http.
        """
        scheme = urllib.parse.urlsplit(newurl).scheme
        if scheme not in ("http", "https") or (req.type == "https" and scheme == "http"):
            fp.close()
            raise _TransferError(f"it redirects to {without_secrets(newurl)}", is_final=True)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download(parts: urllib.parse.SplitResult, shown: str, final: Path, expected: str | None, advice: str) -> None:
    partial = final.with_name(final.name + ".partial")
    try:
        for attempt in range(1, NUM_ATTEMPTS + 1):
            try:
                digest = _transfer(parts, partial, final.name)
                break
            except _TransferError as error:
                if error.is_final or attempt == NUM_ATTEMPTS:
                    raise StorageError(f"{shown}: cannot be downloaded ({error}); {advice}") from error
                wait_seconds = FIRST_WAIT_SECONDS * 2 ** (attempt - 1)
                logger.warning("%s: %s; trying again in %g s", shown, error, wait_seconds)
                time.sleep(wait_seconds)
        if expected not in (None, digest):
            raise StorageError(f"{shown}: not the expected file, its sha256 is {digest} instead of {expected}")
        # The digest first: a file in the cache then never lacks it, wherever this is cut off.
        digest_path(final).write_text(digest + "\n", encoding="ascii")
        os.replace(partial, final)
    finally:
        partial.unlink(missing_ok=True)


def _transfer(parts: urllib.parse.SplitResult, partial: Path, label: str) -> str:
    """Write the file at a URL to ``partial`` and return its sha256."""
    request = urllib.request.Request(_address(parts), headers={"User-Agent": "ppcls", "Accept-Encoding": "identity"})
    if parts.username is not None:
        secret = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        # Unredirected: a password is for the host it was given for.
        request.add_unredirected_header("Authorization", "Basic " + base64.b64encode(secret.encode()).decode())
    digest = hashlib.sha256()
    with _network_errors():
        response = urllib.request.build_opener(_SafeRedirects).open(request, timeout=TIMEOUT_SECONDS)
    with response, open(partial, "wb") as file:
        length = response.headers.get("Content-Length")
        total = int(length) if length and length.isdigit() else None
        with tqdm(desc=label, total=total, unit="B", unit_scale=True, disable=not sys.stderr.isatty()) as bar:
            while True:
                with _network_errors():
                    block = response.read(_BLOCK_BYTES)
                if not block:
                    break
                file.write(block)
                digest.update(block)
                bar.update(len(block))
        received = file.tell()
        if total is not None and received != total:
            raise _TransferError(f"the connection ended after {received} of {total} bytes")
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


@contextmanager
def _network_errors() -> Iterator[None]:
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        is_final = error.code < 500 and error.code not in (408, 429)
        # Not the error's own text: it may quote an address to which the server redirects, secrets included.
        raise _TransferError(f"HTTP {error.code} {http.client.responses.get(error.code, '')}", is_final) from error
    except urllib.error.URLError as error:
        raise _TransferError(getattr(error.reason, "strerror", None) or error.reason) from error
    except TimeoutError as error:
        raise _TransferError(f"no answer within {TIMEOUT_SECONDS} s") from error
    except (OSError, http.client.HTTPException) as error:
        raise _TransferError(getattr(error, "strerror", None) or type(error).__name__) from error


def checked(final: Path, expected: str | None) -> Path:
    """Return a cached file after comparing its sha256 with the expected one and with the one beside it.

    Raises:
        StorageError: it is another one.
    """
    record = digest_path(final)
    digest = sha256_of(final)
    if expected not in (None, digest):
        raise StorageError(
            f"{final}: not the expected file, its sha256 is {digest} instead of {expected};"
            " delete it to download it again, or correct the digest"
        )
    if not record.exists():
        # The file was put there by hand; a cache that is only read need not remember it.
        with suppress(OSError):
            record.write_text(digest + "\n", encoding="ascii")
    elif record.read_text(encoding="ascii", errors="replace").strip() != digest:
        raise StorageError(
            f"{final}: altered since it was downloaded, its sha256 is not the one in {record.name};"
            " delete both to download it again"
        )
    return final


@contextmanager
def locked(final: Path) -> Iterator[None]:
    """Let one process of this machine at a time into the block for ``final``; the others wait."""
    # A lock of the operating system, not a marker file: it cannot outlive the process that holds it.
    with open(final.with_name(f".{final.name}.lock"), "wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("%s: another process is fetching it; waiting", final)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def expected_digest(fragment: str, sha256: str | None, shown: str) -> str | None:
    """Return the digest that ``sha256=...`` behind the ``#`` of a URL, or an argument, gives.

    Raises:
        ConfigError: it is none, or two are given.
    """
    key, _, value = fragment.partition("=")
    given = {digest.lower() for digest in (sha256, value if key == "sha256" else None) if digest is not None}
    if len(given) > 1:
        raise ConfigError(f"{shown}: two different digests are given for it")
    for digest in given:
        if not re.fullmatch("[0-9a-f]{64}", digest):
            raise ConfigError(f"{shown}: {digest!r} is no sha256, which has 64 hexadecimal digits")
    return next(iter(given), None)


def cache_name(name: str, key: str) -> str:
    """Return a file's own name, tamed, with a short hash of ``key``, which tells namesakes apart."""
    name = re.sub(r"[^\w.-]", "_", name, flags=re.ASCII).lstrip(".")
    stem, dot, ending = name.rpartition(".")
    if not stem:
        stem, ending = ending or "download", ""
    mark = hashlib.sha256(key.encode()).hexdigest()[:8]
    return f"{stem[:100]}-{mark}{dot if ending else ''}{ending[:20]}"


def digest_path(final: Path) -> Path:
    """Return where the sha256 of a cached file is kept."""
    return final.with_name(final.name + ".sha256")


def _cache_name(parts: urllib.parse.SplitResult) -> str:
    return cache_name(urllib.parse.unquote(parts.path).rpartition("/")[2], _address(parts))


def _address(parts: urllib.parse.SplitResult) -> str:
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))
