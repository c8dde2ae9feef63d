# SPDX-License-Identifier: Apache-2.0
"""Some rows of a JPEG are those of the whole one, or it is decoded as a whole."""

import cv2
import numpy as np
import pytest

from ppcls.data import draft
from ppcls.data.pack_encoder import shrunk
from ppcls.data.pipeline import Pipeline
from ppcls.data.rng import SampleRng
from ppcls.data.transforms import DecodeImage, RandCropImage, decode_image
from ppcls.data.transforms.jpeg_rows import only_rows, upper_rows
from ppcls.utils import stderr

SAMPLINGS = {444: (8, 8), 422: (16, 8), 420: (16, 16), 440: (8, 16)}
"""Width and height of a block, by the name of OpenCV's flag."""


def noise(height, width, channels=3):
    return np.random.RandomState(height * width).randint(0, 256, (height, width, channels)).astype(np.uint8)


def jpeg(image, block=(16, 16), *flags):
    """A JPEG whose every row of blocks begins with a restart marker."""
    interval = -(-image.shape[1] // block[0])
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_RST_INTERVAL, interval, *flags])[1].tobytes()


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize(("height", "width"), [(160, 64), (163, 45), (161, 17)])
def test_the_rows_are_those_of_the_whole(height, width, sampling):
    flag = getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{sampling}")
    data = jpeg(noise(height, width), SAMPLINGS[sampling], cv2.IMWRITE_JPEG_SAMPLING_FACTOR, flag)
    whole = decode_image(data)
    draw = np.random.RandomState(0)
    areas = [(0, 1), (height - 1, height), (15, 17), (16, 32), (32, 48), (17, 31)]
    areas += [tuple(sorted(draw.choice(height + 1, 2, replace=False).tolist())) for _ in range(60)]
    shorter = 0
    for top, bottom in areas:
        part = only_rows(data, top, bottom)
        if part is None:
            assert bottom - top > height - 4 * 16
            continue
        rows, first = part
        image = decode_image(rows)
        assert first % 8 == 0 and first <= top
        assert np.array_equal(image[top - first : bottom - first], whole[top:bottom])
        assert image.shape[0] <= bottom - top + 2 * SAMPLINGS[sampling][1] + 4
        shorter += 1
    assert shorter > len(areas) / 2


def test_what_a_pack_stores_is_made_for_it():
    data = shrunk(noise(400, 600), 288, 90)
    rows, first = only_rows(data, 100, 140)
    assert first == 96
    assert np.array_equal(decode_image(rows)[4:44], decode_image(data)[100:140])


def test_a_crop_of_what_a_pack_stores_is_that_of_the_whole_image():
    data = shrunk(noise(400, 600), 288, 90)
    decode, crop = DecodeImage(), RandCropImage(64)
    for index in range(40):
        image = decode(data)
        expected = crop.apply(image, crop.draw(SampleRng(0, 1, index), image))
        result = Pipeline([decode, crop])(data, SampleRng(0, 1, index))
        assert np.array_equal(result, expected.transpose(2, 0, 1))


def with_exif(data, orientation):
    """The JPEG with an EXIF segment that says how it is turned (one entry: tag 0x112, a short)."""
    exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0" + bytes([orientation]) + bytes(6)
    return data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:]


@pytest.fixture
def own_stderr(monkeypatch):
    """A process in which libjpeg's complaints may be dropped, as a worker is."""
    monkeypatch.setattr(stderr, "_descriptors", None)
    stderr.allow_quiet()


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("reduction", [1, 2, 4, 8])
def test_without_the_rows_below_the_pixels_are_those_of_the_whole(sampling, reduction, own_stderr, capfd):
    flag = getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{sampling}")
    data = cv2.imencode(".jpg", noise(403, 130), [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, flag])[1].tobytes()
    whole = decode_image(data, reduce=reduction)
    for bottom in (1, 15, 16, 17, 31, 64, 200, 350):
        with stderr.quiet():
            upper = decode_image(upper_rows(data, bottom, reduction), reduce=reduction)
        needed = -(-bottom // reduction)
        assert np.array_equal(upper[:needed], whole[:needed])
        assert len(upper) * reduction <= bottom + 2 * reduction + 16 + reduction
    assert upper_rows(data, 400, reduction) is None
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [16, 100])
@pytest.mark.parametrize("has_restarts", [False, True])
def test_what_is_left_out_never_changes_a_draft(has_restarts, size, orientation, own_stderr, monkeypatch, capfd):
    image = cv2.GaussianBlur(noise(400, 300), (0, 0), 4)
    data = jpeg(image) if has_restarts else cv2.imencode(".jpg", image)[1].tobytes()
    data = with_exif(data, orientation)
    pipeline = Pipeline([DecodeImage(draft=True), RandCropImage(size, scale=[0.1, 0.5])])
    results = [pipeline(data, SampleRng(0, 1, index)) for index in range(8)]
    assert capfd.readouterr().err == ""
    monkeypatch.setattr(stderr, "_descriptors", None)
    monkeypatch.setattr(draft, "only_rows", lambda *_: None)
    for index, result in enumerate(results):
        assert np.array_equal(result, pipeline(data, SampleRng(0, 1, index)))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(cv2.imencode(".jpg", noise(99, 70))[1].tobytes(), id="no restarts"),
        pytest.param(jpeg(noise(99, 70), (8, 8)), id="restarts elsewhere"),
        pytest.param(jpeg(noise(99, 70), (16, 16), cv2.IMWRITE_JPEG_PROGRESSIVE, 1), id="progressive"),
        pytest.param(jpeg(noise(99, 70, 1), (8, 8)), id="grey"),
        pytest.param(jpeg(noise(99, 70))[:-1], id="cut off at its end"),
        pytest.param(jpeg(noise(99, 70))[:-2000], id="cut off"),
        pytest.param(jpeg(noise(99, 70))[:300], id="cut off in its header"),
        pytest.param(jpeg(noise(99, 70)).replace(b"\xff\xd1", b"\xff\x00"), id="a marker lost"),
        pytest.param(cv2.imencode(".png", noise(99, 70))[1].tobytes() + b"\xff\xdd", id="png"),
        pytest.param(b"", id="empty"),
    ],
)
def test_another_file_is_decoded_as_a_whole(data):
    assert only_rows(data, 40, 50) is None


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(jpeg(noise(99, 70), (16, 16), cv2.IMWRITE_JPEG_PROGRESSIVE, 1), id="progressive"),
        pytest.param(jpeg(noise(99, 70, 1), (8, 8)), id="grey"),
        pytest.param(jpeg(noise(99, 70))[:-1], id="cut off at its end"),
        pytest.param(jpeg(noise(99, 70))[:300], id="cut off in its header"),
        pytest.param(cv2.imencode(".png", noise(99, 70))[1].tobytes(), id="png"),
        pytest.param(b"", id="empty"),
    ],
)
def test_rows_below_are_left_out_of_baseline_files_only(data):
    assert upper_rows(data, 20) is None


def test_no_damage_to_the_header_ends_in_another_exception():
    data = jpeg(noise(99, 70))
    draw = np.random.RandomState(0)
    for _ in range(2000):
        damaged = bytearray(data)
        damaged[draw.randint(700)] = draw.randint(256)
        part = only_rows(bytes(damaged), 40, 50)
        assert part is None or len(part[0]) <= len(data)
        upper = upper_rows(bytes(damaged), 50)
        assert upper is None or len(upper) == len(data)
