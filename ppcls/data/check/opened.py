# SPDX-License-Identifier: Apache-2.0
"""Data sets opened to be checked: faulty lines of a list are kept as faults, and the others are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ppcls.data.check.fault import Fault
from ppcls.data.dataset import ImageDataset
from ppcls.data.list_file import ImageNetDataset
from ppcls.data.list_lines import ListFile
from ppcls.utils.errors import DataError

MAX_LIST_FAULTS = 100_000
"""How many faulty lines of a list are told one by one."""


@dataclass
class Opened:
    """A data set under the name of its part, such as Train; None where it cannot be opened at all."""

    name: str
    dataset: ImageDataset | None
    faults: list[Fault] = field(default_factory=list)


class _FaultyList(ImageNetDataset):
    """Reads the good lines of a list that has others as well."""

    def _load(self, paths: list[str], delimiter: str | None) -> list[ListFile]:
        return [ListFile(path, delimiter, MAX_LIST_FAULTS) for path in paths]


def open_list(
    name: str,
    image_root: str,
    cls_label_path: str | Sequence[str],
    delimiter: str | None = None,
    relabel: bool = False,
) -> Opened:
    """Open a list of images, faulty lines included.

    Args:
        name: of the part.
        image_root: as `ImageNetDataset` takes it; so are the others.
        cls_label_path: the list file, or several.
        delimiter: what stands between path and label.
        relabel: number the labels anew.
    """
    places = cls_label_path if isinstance(cls_label_path, str) else list(cls_label_path)

    def build() -> ImageDataset:
        return _FaultyList(image_root, places, None, delimiter, relabel)

    result = opened(name, build)
    if isinstance(result.dataset, _FaultyList):
        for file in result.dataset.files:
            result.faults += [Fault("list", name, f"{file.path}:{fault.line}", fault.problem) for fault in file.faults]
            untold = file.num_faults - len(file.faults)
            if untold:
                result.faults.append(Fault("list", name, file.path, f"{untold} more faulty lines"))
            if not len(file) and not file.faults:
                result.faults.append(Fault("list", name, file.path, "the list is empty"))
        if not len(result.dataset):
            result.dataset = None
    return result


def opened(name: str, build: Callable[[], ImageDataset]) -> Opened:
    """Build a data set of any kind; what stands in the way becomes a fault."""
    try:
        return Opened(name, build())
    except DataError as error:
        where, colon, problem = str(error).partition(": ")
        return Opened(name, None, [Fault("list", name, where if colon else name, problem or str(error))])
