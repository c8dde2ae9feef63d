# SPDX-License-Identifier: Apache-2.0
"""Pictures in rows and columns, with words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SMALLEST, LARGEST = 128, 256
"""Within which the longer side of a picture is brought, in pixels."""
GAP = 6
MARGIN = 12
TEXT_HEIGHT = 18
FONT_SIZE = 13
INK, FAINT, PAPER = (20, 20, 20), (110, 110, 110), (255, 255, 255)


class Grid:
    """A sheet that grows downwards, row by row.

    Args:
        num_columns: pictures in a row.
        side: longer side in pixels of the pictures that matter; others are brought to the same.
    """

    def __init__(self, num_columns: int, side: int) -> None:
        self.num_columns = num_columns
        self.cell = min(side * -(-SMALLEST // side), LARGEST)
        self.width = 2 * MARGIN + num_columns * (self.cell + GAP) - GAP
        self._font = ImageFont.load_default(FONT_SIZE)
        self._parts: list[Image.Image] = []

    def add_text(self, text: str, indent: int = 0) -> None:
        """Add a paragraph, broken into lines.

        Args:
            text: words; what is between them counts as one space.
            indent: in pixels; lines after the first have twice as much.
        """
        lines = [""]
        for word in text.split():
            line = f"{lines[-1]} {word}".strip()
            if lines[-1] and MARGIN + 2 * indent + self._font.getlength(line) > self.width - MARGIN:
                lines.append(word)
            else:
                lines[-1] = line
        _, pen = self._new_part(TEXT_HEIGHT * len(lines))
        for number, line in enumerate(lines):
            pen.text((MARGIN + indent * (2 if number else 1), number * TEXT_HEIGHT), line, INK, self._font)

    def add_heads(self, heads: Sequence[str]) -> None:
        """Add a line with a word above each column."""
        _, pen = self._new_part(TEXT_HEIGHT)
        for column, head in enumerate(heads):
            pen.text((self._left(column), 0), head, INK, self._font)

    def add_row(self, label: str, images: Sequence[np.ndarray | None], texts: Sequence[str] = ()) -> None:
        """Add a row of pictures.

        Args:
            label: a line above the row.
            images: uint8 [H, W, 3] each; None leaves its place empty.
            texts: a line below each picture.
        """
        pictures = [None if image is None else self._scaled(image) for image in images]
        height = max((picture.height for picture in pictures if picture), default=0)
        has_texts = any(texts)
        part, pen = self._new_part(TEXT_HEIGHT + height + (TEXT_HEIGHT if has_texts else 0) + GAP)
        pen.text((MARGIN, 0), label, FAINT, self._font)
        for column, picture in enumerate(pictures):
            if picture:
                part.paste(picture, (self._left(column), TEXT_HEIGHT))
        for column, text in enumerate(texts):
            pen.text((self._left(column), TEXT_HEIGHT + height), text, FAINT, self._font)

    def drawn(self) -> Image.Image:
        """Return the sheet."""
        sheet = Image.new("RGB", (self.width, 2 * MARGIN + sum(part.height for part in self._parts)), PAPER)
        top = MARGIN
        for part in self._parts:
            sheet.paste(part, (0, top))
            top += part.height
        return sheet

    def _new_part(self, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
        part = Image.new("RGB", (self.width, height), PAPER)
        self._parts.append(part)
        return part, ImageDraw.Draw(part)

    def _left(self, column: int) -> int:
        return MARGIN + column * (self.cell + GAP)

    def _scaled(self, image: np.ndarray) -> Image.Image:
        picture = Image.fromarray(np.ascontiguousarray(image))
        longer = max(picture.size)
        if longer <= self.cell:
            # By a whole number, so that each pixel stays a square.
            by = self.cell // longer
            return picture.resize((picture.width * by, picture.height * by), Image.Resampling.NEAREST)
        size = (max(round(side * self.cell / longer), 1) for side in picture.size)
        return picture.resize(tuple(size), Image.Resampling.BOX)
