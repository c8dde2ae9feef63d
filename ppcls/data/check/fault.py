# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with data, by kind."""

from __future__ import annotations

from dataclasses import dataclass

FAULTS = {
    "list": "list files or folders that cannot be used as they are",
    "label": "labels outside the model's classes",
    "class": "classes without an image to train on",
    "mapping": "class folders with different labels in different lists",
    "missing": "files that are not there",
    "damaged": "images that cannot be decoded",
    "conflict": "images that are listed again with another label",
    "conflicting_copy": "files of the same content with different labels",
    "leak": "images that are in two of the data sets, such as in those to train on and to evaluate on",
}
NOTES = {
    "empty_class": "classes without an image in a list that is not trained on",
    "repeat": "images that are listed again with the same label",
    "copy": "files of the same content and label",
    "animated": "animated images, of which the first frame is taken",
    "cmyk": "CMYK images, which are converted to RGB",
    "turned": "images that are stored turned, and are turned upright as EXIF says",
    "deep": "images of 16 bits a channel, which are reduced to 8",
    "transparent": "images with transparency, which is dropped",
}
KINDS = {**FAULTS, **NOTES}


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong, or worth to be known.

    Args:
        kind: a key of ``KINDS``.
        split: the data set's name, such as Train.
        where: the list file and line, or the file.
        problem: what is wrong, and with what.
        path: the image file, where there is one.
        label: the image's label.
    """

    kind: str
    split: str
    where: str
    problem: str
    path: str | None = None
    label: int | None = None

    def __str__(self) -> str:
        is_same = self.path is None or self.path == self.where
        return f"{self.where}: {'' if is_same else f'{self.path}: '}{self.problem}"
