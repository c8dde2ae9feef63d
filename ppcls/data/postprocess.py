# SPDX-License-Identifier: Apache-2.0
"""From a model's logits to what a person wants to know."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from ppcls.config.registry import POSTPROCESSES, Count
from ppcls.data.transforms import functional
from ppcls.utils.errors import DataError

logger = logging.getLogger(__name__)


@POSTPROCESSES.register
class Topk:
    """The most probable classes of each image, best first; of equal ones the smaller number first.

    Args:
        topk: how many; at most as many as there are classes.
        class_id_map_file: file of lines ``0 tench``, UTF-8; None gives no names, and so does a file
            that is missing, with a warning. It is read when the first result is asked for.
        delimiter: what stands between number and name, at its first occurrence; None means a space.

    Attributes:
        labels: class number -> name, if they come from elsewhere than the file.

    Raises:
        ValueError: ``topk`` below 1.
        DataError: when called, for a file that is not as described or lacks a class.

    YAML::

        - Topk: {topk: 5, class_id_map_file: ./dataset/digits/label_list.txt}
    """

    def __init__(self, topk: Count = 1, class_id_map_file: str | None = None, delimiter: str | None = None) -> None:
        if topk < 1:
            raise ValueError(f"topk must be at least 1; got {topk}")
        self.topk = topk
        self.class_id_map_file = class_id_map_file
        self.delimiter = delimiter
        self.labels: dict[int, str] | None = None

    def __call__(self, logits: np.ndarray, file_names: list[str] | None = None) -> list[dict[str, Any]]:
        """Return one result per image: ``class_ids``, ``scores`` (probabilities), ``file_name``, ``label_names``.

        Args:
            logits: float [N, class_num].
            file_names: N names; without them the results have no ``file_name``.
        """
        return self.of_probs(_softmax(logits), file_names)

    def of_probs(self, probs: np.ndarray, file_names: list[str] | None = None) -> list[dict[str, Any]]:
        """Return what calling this returns, for a model that ends in softmax."""
        labels = self.load_labels()
        best = (-probs).argsort(axis=1, kind="stable")[:, : self.topk]
        results = []
        for row, class_ids in enumerate(best.tolist()):
            result: dict[str, Any] = {
                "class_ids": class_ids,
                "scores": [round(float(probs[row, class_id]), 5) for class_id in class_ids],
            }
            if file_names is not None:
                result["file_name"] = file_names[row]
            result["label_names"] = [] if labels is None else [self._name(labels, class_id) for class_id in class_ids]
            results.append(result)
        return results

    def load_labels(self) -> dict[int, str] | None:
        """Return class number -> name, reading the file the first time; None without names.

        Raises:
            DataError: the file is not as described.
        """
        if self.labels is None and self.class_id_map_file is not None:
            try:
                text = functional.read_file(self.class_id_map_file).decode("utf-8-sig")
            except UnicodeDecodeError as error:
                raise DataError(f"{self.class_id_map_file}: not UTF-8; store it as UTF-8") from error
            except DataError as error:
                logger.warning("class_id_map_file: %s; results have no label_names", error)
                self.class_id_map_file = None
            else:
                self.labels = _parse_labels(text, self.class_id_map_file, self.delimiter or " ")
        return self.labels

    def _name(self, labels: dict[int, str], class_id: int) -> str:
        if class_id not in labels:
            raise DataError(
                f"{self.class_id_map_file or 'labels'}: no name for class {class_id} among {len(labels)}; "
                "take the file that belongs to the model, or none"
            )
        return labels[class_id]


def _parse_labels(text: str, path: str, delimiter: str) -> dict[int, str]:
    labels = {}
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip()
        if line:
            class_id, _, name = line.partition(delimiter)
            if not class_id.strip().isdecimal() or not name.strip():
                raise DataError(f"{path}:{number}: {line!r} is no class number with a name; expected: 0{delimiter}name")
            labels[int(class_id)] = name.strip()
    return labels


def _softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities over axis 1."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
