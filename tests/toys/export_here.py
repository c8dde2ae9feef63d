# SPDX-License-Identifier: Apache-2.0
"""Named in ``Global.imports``: an export does in its own process what it otherwise starts others for.

So it takes a second instead of ten, and all that happens to its files is done by the process that a test kills.
With ``WITHOUT_EXCHANGE`` in the environment it is on a file system that cannot exchange directories.
"""

import importlib
import os

from ppcls.deploy import parity, to_onnx
from ppcls.utils import storage


def _run_here(module, *arguments):
    importlib.import_module(module).main(*map(str, arguments))


parity.failure_of_module = to_onnx.failure_of_module = _run_here
if "WITHOUT_EXCHANGE" in os.environ:
    storage.exchange = lambda one, other: False
