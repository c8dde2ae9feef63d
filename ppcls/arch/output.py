# SPDX-License-Identifier: Apache-2.0
"""What a model returned, seen as logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def logits_of(output: Any) -> Any:
    """Return the logits in a model's output: a tensor itself, ``logits`` of a dict, the first of a list or tuple.

    Raises:
        KeyError: a dict without ``logits``; names the keys it has.
        ValueError: an empty list or tuple.
    """
    if isinstance(output, Mapping):
        if "logits" not in output:
            raise KeyError(f"the model's output has no 'logits', only {', '.join(map(repr, output)) or 'nothing'}")
        return logits_of(output["logits"])
    if isinstance(output, Sequence):
        if not output:
            raise ValueError("the model's output is empty, it has no logits")
        return logits_of(output[0])
    return output
