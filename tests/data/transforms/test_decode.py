# SPDX-License-Identifier: Apache-2.0
"""One decoder: what it makes of every kind of file, and what it refuses."""

from __future__ import annotations

import os
import struct
import zlib

import cv2
import numpy as np
import pytest
from image_files import PICTURE, UPRIGHT, encode
from PIL import Image

from ppcls.data.transforms import DecodeImage, decoding
from ppcls.data.transforms.decoding import decode_image, read_file
from ppcls.data.transforms.image_header import MAX_PIXELS
from ppcls.utils.errors import DataError


def png_header(width: int, height: int) -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data_starts = struct.pack(">I", 1000) + b"IDAT"
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data_starts


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(Image.fromarray(PICTURE), kind, exif=exif, **options)
    expected = UPRIGHT[orientation](PICTURE)
    tolerance = 6 if kind == "JPEG" else 0
    decoded = decode_image(data)
    assert decoded.shape == expected.shape
    assert np.abs(decoded.astype(int) - expected).max() <= tolerance
    np.testing.assert_array_equal(DecodeImage(backend="pil")(data), decoded)


def test_sixteen_bits_keep_their_upper_eight():
    grey = (np.arange(2400).reshape(40, 60) * 27).astype(np.uint16)
    expected = np.repeat((grey >> 8).astype(np.uint8)[..., None], 3, axis=2)
    np.testing.assert_array_equal(decode_image(cv2.imencode(".png", grey)[1].tobytes()), expected)
    color = np.stack([grey, grey[::-1], grey[:, ::-1]], axis=2)
    decoded = decode_image(cv2.imencode(".png", color[:, :, ::-1])[1].tobytes())
    np.testing.assert_array_equal(decoded, (color >> 8).astype(np.uint8))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_other_color_modes_become_rgb_and_transparency_is_dropped(mode):
    picture = Image.fromarray(PICTURE)
    if mode == "P":
        image = picture.quantize(16)
    elif mode == "RGBA":
        image = picture.convert("RGBA")
        image.putalpha(7)
    else:
        image = picture.convert(mode)
    expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(decode_image(encode(image, "PNG")), expected)


def test_cmyk_jpeg_is_converted():
    data = encode(Image.fromarray(PICTURE).convert("CMYK"), "JPEG", quality=100)
    assert np.abs(decode_image(data).astype(int) - PICTURE).max() <= 8


def test_of_an_animation_the_first_frame_is_taken():
    frames = [Image.fromarray(np.full((20, 30, 3), value, np.uint8)) for value in (10, 200)]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode_image(data), np.full((20, 30, 3), 10))


def test_one_pixel_is_an_image():
    assert decode_image(encode(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG")).tolist() == [[[1, 2, 3]]]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.5, 0.9, 0.99])
def test_a_file_that_is_cut_off_is_an_error(kind, fraction):
    data = encode(Image.fromarray(PICTURE), kind)
    with pytest.raises(DataError, match=r"^cut\.img: (cannot be decoded|damaged or cut off|not an image)"):
        decode_image(data[: int(len(data) * fraction)], "cut.img")


@pytest.mark.parametrize(
    "data",
    [b"GARBAGE" * 20, b"\x00" * 100, b"<!DOCTYPE html><html></html>", b'<svg xmlns="http://www.w3.org/2000/svg"/>'],
)
def test_what_is_not_an_image_says_how_it_starts(data):
    with pytest.raises(DataError) as caught:
        decode_image(data, "page.jpg")
    assert str(caught.value) == f"page.jpg: not an image; the file starts with {data[:8]!r}"


def test_an_empty_file_is_named(tmp_path):
    path = tmp_path / "nothing.jpg"
    path.touch()
    with pytest.raises(DataError) as caught:
        decode_image(path)
    assert str(caught.value) == f"{path}: the file is empty"


@pytest.mark.parametrize(("width", "height"), [(50_000, 50_000), (10_000, 9_000), (2**31 - 1, 2**31 - 1)])
def test_size_is_refused_from_the_header_alone(monkeypatch, width, height):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(DataError, match=f"^bomb.png: .*{MAX_PIXELS} (pixels )?that are decoded; shrink it"):
        decode_image(png_header(width, height), "bomb.png")


def test_missing_directory_and_pipe_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, reason in [("none.jpg", "No such file"), (".", "not a regular file"), ("pipe", "not a regular file")]:
        with pytest.raises(DataError, match=reason) as caught:
            decode_image(tmp_path / path)
        assert str(caught.value).startswith(str(tmp_path / path))


def test_a_path_and_its_bytes_decode_alike(tmp_path):
    path = tmp_path / "Größe 图.png"
    path.write_bytes(encode(Image.fromarray(PICTURE), "PNG"))
    np.testing.assert_array_equal(decode_image(str(path)), PICTURE)
    np.testing.assert_array_equal(decode_image(path.read_bytes()), PICTURE)


def test_channel_order_and_layout_are_as_asked():
    data = encode(Image.fromarray(PICTURE), "PNG")
    np.testing.assert_array_equal(DecodeImage(to_rgb=False)(data), PICTURE[:, :, ::-1])
    np.testing.assert_array_equal(DecodeImage(channel_first=True)(data), PICTURE.transpose(2, 0, 1))


def test_an_array_is_an_image_already():
    np.testing.assert_array_equal(DecodeImage()(PICTURE), PICTURE)


@pytest.mark.parametrize("stated", [0, 10, 1000, 3000])
@pytest.mark.parametrize("at_once", [7, 1 << 30])
def test_a_file_is_read_to_its_end_whatever_size_is_stated_and_however_much_comes_at_once(
    tmp_path, monkeypatch, stated, at_once
):
    content = bytes(range(250)) * 4
    (tmp_path / "file").write_bytes(content)
    status, read = os.stat(tmp_path / "file"), os.read
    changed = os.stat_result((*status[:6], stated, *status[7:]))
    with monkeypatch.context() as patched:
        patched.setattr(decoding.os, "stat", lambda path: changed)
        patched.setattr(decoding.os, "read", lambda file, size: read(file, min(size, at_once)))
        data = read_file(tmp_path / "file")
    assert data == content


def test_reading_leaves_no_file_open(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    for _ in range(2):
        with open(tmp_path / "file", "rb") as file:
            number = file.fileno()
        read_file(tmp_path / "file")
    with open(tmp_path / "file", "rb") as file:
        assert file.fileno() == number
