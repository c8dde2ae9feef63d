# SPDX-License-Identifier: Apache-2.0
"""The secret that clients have to know, if there is one; never an argument, which others could read, nor logged."""

from __future__ import annotations

import hmac
import os

from ppcls.utils.errors import ConfigError

VARIABLE = "PPCLS_SERVE_TOKEN"
LEAST = 16
"""Characters of a token; fewer can be guessed."""


class Token:
    """A bearer token (RFC 6750).

    Args:
        value: the secret.
    """

    def __init__(self, value: str) -> None:
        self._expected = value.encode()

    def fits(self, authorization: str | None) -> bool:
        """Whether a header ``Authorization`` has it; takes the same time for every wrong one."""
        scheme, _, given = (authorization or "").partition(" ")
        given_bytes = given.strip().encode("utf-8", "surrogateescape")
        return scheme.lower() == "bearer" and hmac.compare_digest(given_bytes, self._expected)


def read_token(file: str | None) -> Token | None:
    """The token in a file, or in the environment variable, which is taken out of the environment; None without any.

    Raises:
        ConfigError: there are two, or it is short, or holds what a header cannot.
        OSError: the file cannot be read.
    """
    value = os.environ.pop(VARIABLE, None)
    place = VARIABLE
    if value is not None and file is not None:
        raise ConfigError(f"--token_file {file}: {VARIABLE} gives a token too; give one of them")
    if file is not None:
        with open(file, encoding="utf-8", errors="replace") as stream:
            value, place = stream.read(4096), file
    if value is None:
        return None
    value = value.strip()
    if len(value) < LEAST or not value.isascii() or not value.isprintable() or " " in value:
        raise ConfigError(f"{place}: a token has {LEAST} printable ASCII characters or more, without blanks")
    return Token(value)
