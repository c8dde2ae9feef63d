# SPDX-License-Identifier: Apache-2.0
"""Two directories change places in one step, so that there is no moment without either."""

from __future__ import annotations

import ctypes
import errno
import os
import sys

_HERE = -100  # AT_FDCWD: paths start from the current directory
_EXCHANGE = 2  # RENAME_EXCHANGE
_CANNOT = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


def exchange(one: str | os.PathLike, other: str | os.PathLike) -> bool:
    """Let two paths change places in one step; False where the system or the file system cannot.

    Linux can (``renameat2``), on ext4, XFS, btrfs, tmpfs and most others; NFS cannot.

    Raises:
        OSError: one of them is not there, or may not be renamed.
    """
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform == "linux" else None
    if rename is None:
        return False
    sys.audit("os.rename", one, other, -1, -1)  # as Python's own functions do
    paths = [os.fsencode(os.path.abspath(path)) for path in (one, other)]
    if rename(_HERE, paths[0], _HERE, paths[1], ctypes.c_uint(_EXCHANGE)) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT:
        return False
    raise OSError(number, os.strerror(number), os.fspath(one), None, os.fspath(other))
