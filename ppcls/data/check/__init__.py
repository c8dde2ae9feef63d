# SPDX-License-Identifier: Apache-2.0
"""Data sets looked through before they are trained on: every list line, every file, every pixel."""

from ppcls.data.check.checker import Checker
from ppcls.data.check.fault import Fault
from ppcls.data.check.opened import Opened, open_list, opened

__all__ = ["Checker", "Fault", "Opened", "open_list", "opened"]
