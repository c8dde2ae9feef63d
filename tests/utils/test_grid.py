# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from ppcls.utils.grid import LARGEST, MARGIN, SMALLEST, TEXT_HEIGHT, Grid

NOISE = np.random.RandomState(0).randint(0, 200, (300, 300, 3)).astype(np.uint8)


def picture(grid, column=0):
    """The pixels at a column of the first row, with what is below them."""
    sheet = np.asarray(grid.drawn())
    left = MARGIN + column * (grid.cell + 6)
    return sheet[MARGIN + TEXT_HEIGHT :, left : left + grid.cell]


@pytest.mark.parametrize(("side", "by"), [(32, 4), (50, 3), (127, 2), (128, 1), (224, 1)])
def test_small_pictures_are_enlarged_by_whole_numbers(side, by):
    grid = Grid(1, side)
    grid.add_row("", [NOISE[:side, :side]])
    expected = NOISE[:side, :side].repeat(by, axis=0).repeat(by, axis=1)
    assert SMALLEST <= grid.cell == side * by <= LARGEST
    np.testing.assert_array_equal(picture(grid)[: side * by], expected)


def test_large_pictures_are_shrunk_in_their_proportions():
    grid = Grid(2, 1000)
    large = np.zeros((500, 1000, 3), np.uint8)
    grid.add_row("", [large, large])
    assert grid.cell == LARGEST
    dark = (picture(grid, 1) == 0).all(axis=2)
    assert dark[: LARGEST // 2].all() and not dark[LARGEST // 2 :].any()


def test_rows_stand_below_each_other_and_a_missing_picture_leaves_its_place():
    grid = Grid(2, 128)
    black = np.zeros((128, 128, 3), np.uint8)
    grid.add_row("", [None, black])
    grid.add_row("", [black, None])
    first, second = picture(grid, 0), picture(grid, 1)
    assert (first[:128] == 255).all() and (second[:128] == 0).all()
    assert (second[140:] == 255).all() and (first[140:] == 0).all(axis=2).sum() == 128 * 128


def test_text_is_drawn_and_long_text_takes_more_lines():
    heights = []
    for text in ("", "RandCropImage", "RandCropImage " * 40):
        grid = Grid(3, 128)
        grid.add_text(text)
        sheet = np.asarray(grid.drawn())
        assert (sheet < 100).any() == bool(text)
        assert (sheet[:, -MARGIN:] == 255).all()
        heights.append(len(sheet))
    assert heights[0] == heights[1] < heights[2]


def test_heads_and_texts_below_pictures_stand_in_their_columns():
    grid = Grid(2, 128)
    grid.add_heads(["", "epoch 1"])
    grid.add_row("", [None, None], ["", "70% of 1"])
    dark = (np.asarray(grid.drawn()) < 160).all(axis=2)
    assert dark[:, MARGIN + grid.cell :].sum() > 50 and not dark[:, : MARGIN + grid.cell].any()
