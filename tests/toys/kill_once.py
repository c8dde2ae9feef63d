# SPDX-License-Identifier: Apache-2.0
"""Named in ``Global.imports``: process 1 is killed before the batch ``KILL_AT_PLACE`` (``EPOCH,BATCH``), once.

The file ``KILLED`` says that it has been.
"""

import os
import signal
from pathlib import Path

from ppcls.engine.trainer import Trainer

_step = Trainer.step
_mark = Path(os.environ["KILLED"])


def _step_or_die(self, batch, state):
    is_here = f"{state.epoch},{state.batch}" == os.environ["KILL_AT_PLACE"]
    if is_here and os.environ.get("PADDLE_TRAINER_ID") == "1" and not _mark.exists():
        _mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return _step(self, batch, state)


Trainer.step = _step_or_die
