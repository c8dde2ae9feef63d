# SPDX-License-Identifier: Apache-2.0
"""Training, evaluation, inference and export. Importing this package registers every part that YAML can name."""

import ppcls.arch
import ppcls.data.all
import ppcls.engine.evaluator
import ppcls.engine.trainer
import ppcls.loss
import ppcls.metric
import ppcls.optimizer  # noqa: F401
from ppcls.engine.engine import Engine

__all__ = ["Engine"]
