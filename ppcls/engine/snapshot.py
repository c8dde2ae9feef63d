# SPDX-License-Identifier: Apache-2.0
"""What is to be written, as it was at one moment: the training may go on meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paddle
from paddle import nn

from ppcls.utils.storage import published
from ppcls.utils.tensor_file import file_bytes, write_tensors

Arrays = Mapping[str, np.ndarray]
_BLOCK_BYTES = 4096
"""What a small file takes on most disks; the manifest and the directory take one each."""


@dataclass(frozen=True)
class Snapshot:
    """A directory that does not exist yet.

    Its arrays are copies in the memory of the host: until it is written, what it holds is there twice.

    Attributes:
        path: the directory.
        kind: what it is, such as "checkpoint".
        tensors: arrays for each file.
        texts: the text of each other file.
    """

    path: Path
    kind: str
    tensors: Mapping[str, Arrays]
    texts: Mapping[str, str]

    @property
    def num_bytes(self) -> int:
        """The space that it takes on a disk."""
        sizes = [*map(file_bytes, self.tensors.values()), *(len(text.encode()) for text in self.texts.values()), 1, 1]
        return sum(-(-size // _BLOCK_BYTES) * _BLOCK_BYTES for size in sizes)

    def write(self) -> None:
        """Make the directory appear, whole.

        Raises:
            StorageError: it cannot be written; what was there before is untouched.
        """
        digests: dict[str, str] = {}
        with published(self.path, self.kind, owns_name=True, num_bytes=self.num_bytes, digests=digests) as partial:
            for name, arrays in self.tensors.items():
                digests[name] = write_tensors(arrays, partial / name)
            for name, text in self.texts.items():
                (partial / name).write_text(text, encoding="utf-8")


def weights_of(model: nn.Layer) -> dict[str, np.ndarray]:
    """A copy of every entry of the state dict; bfloat16 as float32, which holds it exactly."""
    return {name: array_of(tensor) for name, tensor in model.state_dict().items()}


def array_of(tensor: paddle.Tensor) -> np.ndarray:
    """A tensor's values in an array of its own, contiguous; bfloat16 as float32."""
    if tensor.dtype == paddle.bfloat16:
        tensor = tensor.astype("float32")
    return np.ascontiguousarray(tensor.numpy())
