# SPDX-License-Identifier: Apache-2.0
"""The data path, from files to batches. A deployed model needs parts of it, and those without Paddle.

So this package imports nothing by itself: `ppcls.data.all` imports and registers everything, and so does asking this
package for a name, as in ``from ppcls.data import Loader``.
"""

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(name)
    try:
        return vars(import_module("ppcls.data.all"))[name]
    except KeyError:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'") from None
