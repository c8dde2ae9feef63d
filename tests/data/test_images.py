# SPDX-License-Identifier: Apache-2.0
"""Images that a person points at."""

import numpy as np
import pytest

from ppcls.data.images import find_images, transform_image
from ppcls.data.transforms.geometry import Pad, ResizeImage
from ppcls.utils.errors import DataError


def test_a_listed_path_may_contain_spaces_and_be_followed_by_a_label(tmp_path):
    for name in ("my photo 1.png", "plain.png"):
        (tmp_path / name).touch()
    (tmp_path / "list.txt").write_text("my photo 1.png\nmy photo 1.png 3\nplain.png 0\n\n")
    expected = [str(tmp_path / name) for name in ("my photo 1.png", "my photo 1.png", "plain.png")]
    assert find_images(str(tmp_path), str(tmp_path / "list.txt")) == expected


@pytest.mark.parametrize("backend", ["cv2", "pil"])
def test_a_strip_that_would_be_scaled_to_a_giant_is_refused_before_it_takes_memory(backend):
    strip = np.zeros([1, 60_000, 3], np.uint8)
    with pytest.raises(DataError, match=r"^strip.png: scaled from 60000 x 1 to \d+ x 256 it would have more than"):
        transform_image(strip, [ResizeImage(resize_short=256, backend=backend)], "strip.png")


def test_what_opencv_cannot_do_is_an_error_of_the_image():
    with pytest.raises(DataError, match="^a.png: does not suit the transforms") as caught:
        transform_image(np.zeros([4, 4, 3], np.uint8), [Pad(padding=2_000_000_000)], "a.png")
    assert "\n" not in str(caught.value)
