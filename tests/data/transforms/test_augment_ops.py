# SPDX-License-Identifier: Apache-2.0
"""Every operation of the policies, against Pillow's and against what it says it does."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from ppcls.data.transforms.augment_ops import OPERATIONS, Step, apply_steps

RANDOM = np.random.RandomState(0)
IMAGES = {
    "noise": RANDOM.randint(0, 256, (37, 53, 3)).astype("uint8"),
    "faint": RANDOM.randint(100, 130, (24, 30, 3)).astype("uint8"),
    "bright": np.clip(RANDOM.normal(200, 40, (50, 40, 3)), 0, 255).astype("uint8"),
    "black and white": 255 * RANDOM.randint(0, 2, (20, 30, 3)).astype("uint8"),
    "one colour": np.full((20, 20, 3), (7, 200, 255), "uint8"),
    "tiny": RANDOM.randint(0, 256, (2, 3, 3)).astype("uint8"),
    "one pixel": RANDOM.randint(0, 256, (1, 1, 3)).astype("uint8"),
    "flipped view": RANDOM.randint(0, 256, (20, 30, 3)).astype("uint8")[::-1, ::-1],
}
FACTORS = (0, 0.1, 0.55, 1, 1.45, 1.9, 2.8)
BLACK = (0, 0, 0)

OF_PILLOW = {
    "auto_contrast": (lambda image, _: ImageOps.autocontrast(image), [None]),
    "equalize": (lambda image, _: ImageOps.equalize(image), [None]),
    "invert": (lambda image, _: ImageOps.invert(image), [None]),
    "posterize": (ImageOps.posterize, range(1, 9)),
    "solarize": (ImageOps.solarize, [0, 1, 50.5, 128, 255, 256]),
    "brightness": (lambda image, factor: ImageEnhance.Brightness(image).enhance(factor), FACTORS),
    "contrast": (lambda image, factor: ImageEnhance.Contrast(image).enhance(factor), FACTORS),
    "color": (lambda image, factor: ImageEnhance.Color(image).enhance(factor), FACTORS),
    "sharpness": (lambda image, factor: ImageEnhance.Sharpness(image).enhance(factor), FACTORS),
    "rotate": (lambda image, degrees: image.rotate(degrees, fillcolor=BLACK), [-30, 0, 11.5, 90, 180, 270]),
}


def operate(name, image, argument, fill=BLACK, interpolation="nearest"):
    return apply_steps(image, [Step(name, argument, interpolation)], fill)


@pytest.mark.parametrize("name", OF_PILLOW)
@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
def test_operations_have_the_pixels_of_pillow(name, image):
    of_pillow, arguments = OF_PILLOW[name]
    for argument in arguments:
        expected = np.asarray(of_pillow(Image.fromarray(image), argument))
        np.testing.assert_array_equal(operate(name, image, argument), expected, err_msg=f"{name} {argument}")


def slow_affine(image, matrix, fill):
    """Each pixel is that below the point where its middle comes from."""
    a, b, c, d, e, f = matrix
    height, width = image.shape[:2]
    moved = np.empty_like(image)
    for row in range(height):
        for column in range(width):
            x = math.floor(a * (column + 0.5) + b * (row + 0.5) + c)
            y = math.floor(d * (column + 0.5) + e * (row + 0.5) + f)
            moved[row, column] = image[y, x] if 0 <= x < width and 0 <= y < height else fill
    return moved


@pytest.mark.parametrize(
    ("name", "argument", "matrix"),
    [
        ("shear_x", 0.27, (1, 0.27, 0, 0, 1, 0)),
        ("shear_x", -0.27, (1, -0.27, 0, 0, 1, 0)),
        ("shear_y", 0.13, (1, 0, 0, 0.13, 1, 0)),
        ("translate_x", 0.21, (1, 0, 0.21 * 53, 0, 1, 0)),
        ("translate_y", -0.33, (1, 0, 0, 0, 1, -0.33 * 37)),
        ("translate_x_pixels", -7, (1, 0, -7, 0, 1, 0)),
        ("translate_y_pixels", 8.4, (1, 0, 0, 0, 1, 8.4)),
    ],
)
def test_moves_take_pixels_from_where_the_formula_says(name, argument, matrix):
    image, fill = IMAGES["noise"], (9, 99, 199)
    np.testing.assert_array_equal(operate(name, image, argument, fill), slow_affine(image, matrix, fill))


def test_positive_moves_go_left_and_up():
    image = IMAGES["noise"]
    np.testing.assert_array_equal(operate("translate_x_pixels", image, 5)[:, :-5], image[:, 5:])
    np.testing.assert_array_equal(operate("translate_y_pixels", image, 5)[:-5], image[5:])
    # The half of the image that is further down is moved more.
    sheared = operate("shear_x", image, 0.5)
    np.testing.assert_array_equal(sheared[30, :30], image[30, 15:45])


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("name", ["shear_x", "shear_y", "translate_x", "translate_y", "rotate"])
def test_interpolated_moves_of_a_slope_are_the_moved_slope(name, interpolation):
    rows, columns = np.mgrid[:60, :80]
    image = np.stack([2 * rows + columns, 3 * columns, 100 + rows], axis=2).astype("uint8")
    argument = 7.0 if name == "rotate" else 0.07
    moved = operate(name, image, argument, (0, 0, 0), interpolation)
    turn = math.radians(argument)
    matrix = {
        "shear_x": (1, 0.07, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, 0.07, 1, 0),
        "translate_x": (1, 0, 5.6, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, 4.2),
        "rotate": (
            *(math.cos(turn), -math.sin(turn), 40 - 40 * math.cos(turn) + 30 * math.sin(turn)),
            *(math.sin(turn), math.cos(turn), 30 - 40 * math.sin(turn) - 30 * math.cos(turn)),
        ),
    }[name]
    x = matrix[0] * (columns + 0.5) + matrix[1] * (rows + 0.5) + matrix[2] - 0.5
    y = matrix[3] * (columns + 0.5) + matrix[4] * (rows + 0.5) + matrix[5] - 0.5
    expected = np.stack([2 * y + x, 3 * x, 100 + y], axis=2)
    inside = (slice(15, 45), slice(15, 65))
    # Levels are cut off, and Pillow's cubic (a = -1) bends a slope of 3 by 0.3.
    assert np.abs(moved[inside] - expected[inside]).max() <= (1.0 if interpolation == "bilinear" else 1.3)


def test_fill_is_what_comes_from_outside():
    image = IMAGES["noise"]
    for name, argument in (("shear_x", 0.9), ("translate_y", 0.5), ("rotate", 45)):
        moved = operate(name, image, argument, (9, 99, 199))
        known = {tuple(pixel) for pixel in image.reshape(-1, 3).tolist()}
        assert {tuple(pixel) for pixel in moved.reshape(-1, 3).tolist()} - known == {(9, 99, 199)}


@pytest.mark.parametrize("added", [0, 55, 110, 200])
def test_solarize_add_lifts_the_darker_half(added):
    image = IMAGES["noise"]
    expected = [min(value + added, 255) if value < 128 else value for value in image.ravel().tolist()]
    np.testing.assert_array_equal(operate("solarize_add", image, added).ravel(), expected)


def test_posterize_to_nothing_is_black_and_to_more_than_there_is_the_image():
    image = IMAGES["noise"]
    assert (operate("posterize", image, 0) == 0).all() and (operate("posterize", image, -2) == 0).all()
    np.testing.assert_array_equal(operate("posterize", image, 9), image)


@pytest.mark.parametrize("hole", [(20, 30, 8, 128), (0, 0, 8, 0), (37, 53, 5, 255), (3, 50, 9, 7), (10, 10, 0, 1)])
def test_cutout_fills_a_square_as_far_as_it_lies_in_the_image(hole):
    image = IMAGES["noise"]
    row, column, half, grey = hole
    expected = image.copy()
    for y in range(row - half, row + half):
        for x in range(column - half, column + half):
            if 0 <= y < 37 and 0 <= x < 53:
                expected[y, x] = grey
    np.testing.assert_array_equal(operate("cutout", image, hole), expected)


def test_steps_follow_each_other_and_leave_the_image_alone():
    image = IMAGES["noise"]
    before = image.copy()
    steps = [Step("invert"), Step("posterize", 3), Step("shear_x", 0.2, "bicubic"), Step("cutout", (5, 5, 4, 0))]
    after = apply_steps(image, steps, BLACK)
    np.testing.assert_array_equal(after, apply_steps(image, steps, BLACK))
    np.testing.assert_array_equal(after, apply_steps(apply_steps(image, steps[:2], BLACK), steps[2:], BLACK))
    np.testing.assert_array_equal(image, before)
    assert apply_steps(image, [], BLACK) is image


def test_every_operation_gives_an_image_of_the_same_kind():
    arguments = {"cutout": (3, 3, 2, 0), "auto_contrast": None, "equalize": None, "invert": None}
    for name in OPERATIONS:
        for interpolation in ("nearest", "bilinear", "bicubic"):
            changed = operate(name, IMAGES["noise"], arguments.get(name, 1), BLACK, interpolation)
            assert changed.shape == (37, 53, 3) and changed.dtype == np.uint8


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4, 3), "float32"), np.zeros((4, 4), "uint8"), np.zeros((3, 4, 4), "uint8")]
)
def test_other_images_are_refused(image):
    with pytest.raises(ValueError, match=r"need uint8 images \[H, W, 3\], this is .*; put them before NormalizeImage"):
        apply_steps(image, [], BLACK)
