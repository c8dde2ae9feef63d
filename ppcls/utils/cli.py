# SPDX-License-Identifier: Apache-2.0
"""What a command line tool does with an expected failure: its lines on stderr and its exit code, no traceback."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from typing import NoReturn

from ppcls.utils.errors import PpclsError

INTERRUPTED = 130


def run(main: Callable[[], None]) -> NoReturn:
    """Call ``main`` and exit: 0, the failure's own exit code, or 130 after Ctrl-C.

    Other exceptions are bugs; they pass through, so that Python shows the traceback and exits with 1.
    """
    # Paddle 3.3.1 warns at import that it found no compiler cache, which no tool here uses.
    warnings.filterwarnings("ignore", message="No ccache found")
    try:
        main()
        sys.stdout.flush()
    except PpclsError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    except BrokenPipeError:
        # The reader (such as `head`) has left; without this, Python complains once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(0)
