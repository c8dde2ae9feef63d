# SPDX-License-Identifier: Apache-2.0
"""Every kind of file that people have among their images: what is made of it, in training as in inference."""

from __future__ import annotations

import os
import struct
from typing import NamedTuple

import cv2
import numpy as np
import pytest
import yaml
from image_files import (
    PICTURE,
    UPRIGHT,
    encode,
    exif,
    interlaced_scanlines,
    jpeg_segment,
    png,
    png_chunk,
    scanlines,
    tiff,
)
from PIL import Image, ImageCms, features

from ppcls.data import ImageFolder, ImageNetDataset
from ppcls.data.images import transform_image
from ppcls.data.level_table import with_table
from ppcls.data.transforms import DecodeImage, NormalizeImage, ToCHWImage, decode_image
from ppcls.data.transforms.image_header import image_size
from ppcls.deploy.bundle import KIND, read_bundle
from ppcls.utils.errors import DataError
from ppcls.utils.storage import published


class Outcome(NamedTuple):
    """A file, and what becomes of it: the pixels, within a tolerance, or an error that says why."""

    content: bytes
    pixels: np.ndarray | None = None
    tolerance: int = 0
    error: str = ""


HEIGHT, WIDTH = PICTURE.shape[:2]
GREY = np.add.outer(np.arange(HEIGHT) * 3, np.arange(WIDTH)).astype(np.uint8)
GREY_RGB = np.repeat(GREY[..., None], 3, axis=2)
SIXTEEN = (np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) * 27).astype(np.uint16)
SIXTEEN_RGB = np.stack([SIXTEEN, SIXTEEN[::-1], SIXTEEN[:, ::-1]], axis=2)
ALPHA = np.add.outer(np.arange(HEIGHT), np.arange(WIDTH) * 4).astype(np.uint8)[..., None]
RGBA = np.concatenate([PICTURE, ALPHA], axis=2)
INDEX = (np.arange(HEIGHT)[:, None] // 10 * 4 + np.arange(WIDTH) // 15).astype(np.uint8)
PALETTE = (np.arange(16)[:, None] * [15, 3, 7] + [0, 100, 50]).astype(np.uint8)
BLACK_AND_WHITE = (np.add.outer(np.arange(HEIGHT), np.arange(WIDTH)) // 8 % 2 * 255).astype(np.uint8)
BLACK_AND_WHITE_RGB = np.repeat(BLACK_AND_WHITE[..., None], 3, axis=2)
FRAMES = [Image.fromarray(np.full((20, 30, 3), value, np.uint8)) for value in (10, 200, 90)]
FIRST_FRAME = np.full((20, 30, 3), 10, np.uint8)

# 8 bits of 16: PNG keeps the upper eight, libtiff goes to the nearest of 255 steps.
UPPER_EIGHT = (SIXTEEN_RGB >> 8).astype(np.uint8)
GREY_UPPER_EIGHT = np.repeat((SIXTEEN >> 8).astype(np.uint8)[..., None], 3, axis=2)

CUT_OFF = "(cannot be decoded|damaged or cut off|not an image)"
NO_IMAGE = "not an image; the file starts with b'"
NOT_DECODED = "cannot be decoded; the file is damaged, cut off, or of a kind that OpenCV lacks"
NUMBERS = "a TIFF of other numbers than up to 16 bits without sign; convert it to 8 bits"


def with_palette() -> Image.Image:
    image = Image.fromarray(INDEX, "P")
    image.putpalette(PALETTE.tobytes())
    return image


def cut(content: bytes, fraction: float) -> Outcome:
    return Outcome(content[: int(len(content) * fraction)], error=CUT_OFF)


def ycck() -> bytes:
    """A JPEG as Photoshop writes it: Y, Cb, Cr and K of inverted ink, and Adobe's marker with transform 2."""
    no_ink = Image.fromarray(255 - PICTURE).convert("YCbCr")
    stored = np.concatenate([np.asarray(no_ink), np.full((HEIGHT, WIDTH, 1), 255, np.uint8)], axis=2)
    # Pillow inverts what it stores, as Photoshop does.
    content = encode(Image.fromarray(255 - stored, "CMYK"), "JPEG", quality=100)
    marker = content.index(b"Adobe")
    return content[: marker + 11] + b"\2" + content[marker + 12 :]


def with_exif(kind: str, orientation: int) -> Outcome:
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}
    stated = Image.Exif()
    stated[0x0112] = orientation
    content = encode(PICTURE, kind, exif=stated, **options)
    return Outcome(content, UPRIGHT[orientation](PICTURE), 6 if kind in ("JPEG", "AVIF") else 0)


def jpeg_with_exif_between(orientation: int, order: str) -> Outcome:
    """EXIF behind other segments, XMP among them, which shares its marker."""
    content = encode(PICTURE, "JPEG", quality=95)
    xmp = jpeg_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>")
    segments = jpeg_segment(0xFE, b"\xff\xc0 in a comment") + xmp
    segments += jpeg_segment(0xE1, b"Exif\0\0" + exif(orientation, order)) + b"\xff\xff"
    return Outcome(content[:2] + segments + content[2:], UPRIGHT[orientation](PICTURE), 6)


def set_jpeg_frame(content: bytes, offset: int, value: bytes) -> bytes:
    frame = content.index(b"\xff\xc0") + 4
    return content[: frame + offset] + value + content[frame + offset + len(value) :]


def make_zoo() -> dict[str, Outcome]:
    jpeg = encode(PICTURE, "JPEG", quality=95)
    plain_png = encode(PICTURE, "PNG")
    webp = encode(PICTURE, "WEBP", lossless=True)
    gif = encode(with_palette(), "GIF")
    indexed = PALETTE[INDEX]
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    apng = encode(FRAMES[0], "PNG", save_all=True, append_images=FRAMES[1:])
    damaged_apng = apng.replace(b"fcTL", b"fsTL", 1).replace(b"fdAT", b"f\xadAT", 1)
    cmyk = Image.fromarray(PICTURE).convert("CMYK")
    eight_bytes = scanlines(np.zeros((1, 1, 3), np.uint8))
    files = {
        "zero_bytes.jpg": Outcome(b"", error="the file is empty"),
        "one_byte.jpg": Outcome(b"\xff", error=NO_IMAGE),
        "garbage.jpg": Outcome(bytes(range(7, 250)), error=NO_IMAGE),
        "zeros.png": Outcome(bytes(1000), error=NO_IMAGE),
        "page.jpg": Outcome(b"<!DOCTYPE html><html><body>404</body></html>", error=NO_IMAGE),
        "drawing.jpg": Outcome(b'<svg xmlns="http://www.w3.org/2000/svg"/>', error=NO_IMAGE),
        "pages.jpg": Outcome(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n", error=NO_IMAGE),
        "only_a_start.jpg": Outcome(b"\xff\xd8\xff\xe0", error=CUT_OFF),
        "garbage_behind_a_start.png": Outcome(b"\x89PNG\r\n\x1a\n" + bytes(range(200)), error=CUT_OFF),
        "png_named.jpg": Outcome(plain_png, PICTURE),
        "jpeg_named.png": Outcome(jpeg, PICTURE, 6),
        "baseline.jpg": Outcome(jpeg, PICTURE, 6),
        "progressive.jpg": Outcome(encode(PICTURE, "JPEG", quality=95, progressive=True), PICTURE, 6),
        "grey.jpg": Outcome(encode(GREY, "JPEG", quality=95), GREY_RGB, 4),
        "in_rgb.jpg": Outcome(encode(PICTURE, "JPEG", quality=95, keep_rgb=True), PICTURE, 6),
        "cmyk.jpg": Outcome(encode(cmyk, "JPEG", quality=100), PICTURE, 4),
        "ycck.jpg": Outcome(ycck(), PICTURE, 6),
        "profile.jpg": Outcome(encode(PICTURE, "JPEG", quality=95, icc_profile=profile), PICTURE, 6),
        "junk_behind.jpg": Outcome(jpeg + b"\xff\xc0junk" * 200, PICTURE, 6),
        "two_pictures.jpg": Outcome(encode(PICTURE, "MPO", quality=95), PICTURE, 6),
        "twelve_bits.jpg": Outcome(set_jpeg_frame(jpeg, 0, b"\x0c"), error=NOT_DECODED),
        "no_height.jpg": Outcome(set_jpeg_frame(jpeg, 1, b"\0\0"), error="damaged or cut off"),
        "exif_between_motorola.jpg": jpeg_with_exif_between(6, ">"),
        "exif_between_intel.jpg": jpeg_with_exif_between(8, "<"),
        "exif_of_nine.jpg": Outcome(jpeg[:2] + jpeg_segment(0xE1, b"Exif\0\0" + exif(9)) + jpeg[2:], PICTURE, 6),
        "exif_damaged.jpg": Outcome(jpeg[:2] + jpeg_segment(0xE1, b"Exif\0\0" + exif(6)[:15]) + jpeg[2:], PICTURE, 6),
        "color.png": Outcome(plain_png, PICTURE),
        "interlaced.png": Outcome(png(WIDTH, HEIGHT, interlaced_scanlines(PICTURE), interlaced=True), PICTURE),
        "one_bit.png": Outcome(encode(Image.fromarray(BLACK_AND_WHITE).convert("1"), "PNG"), BLACK_AND_WHITE_RGB),
        "grey_16.png": Outcome(cv2.imencode(".png", SIXTEEN)[1].tobytes(), GREY_UPPER_EIGHT),
        "color_16.png": Outcome(cv2.imencode(".png", SIXTEEN_RGB[:, :, ::-1])[1].tobytes(), UPPER_EIGHT),
        "palette.png": Outcome(encode(with_palette(), "PNG"), indexed),
        "palette_of_four_bits.png": Outcome(encode(with_palette(), "PNG", bits=4), indexed),
        "palette_and_alpha.png": Outcome(encode(with_palette(), "PNG", transparency=bytes(range(16))), indexed),
        "grey_and_alpha.png": Outcome(encode(np.concatenate([GREY[..., None], ALPHA], axis=2), "PNG"), GREY_RGB),
        "color_and_alpha.png": Outcome(encode(RGBA, "PNG"), PICTURE),
        "one_color_transparent.png": Outcome(encode(PICTURE, "PNG", transparency=(0, 40, 80)), PICTURE),
        "profile.png": Outcome(encode(PICTURE, "PNG", icc_profile=profile), PICTURE),
        "animated.png": Outcome(apng, FIRST_FRAME),
        # OpenCV 5.0 itself dies of this one.
        "animated_and_damaged.png": Outcome(damaged_apng, FIRST_FRAME),
        "exif_last.png": Outcome(
            png(WIDTH, HEIGHT, scanlines(PICTURE), after=png_chunk(b"eXIf", exif(6))), UPRIGHT[6](PICTURE)
        ),
        "one_by_65535.png": Outcome(png(1, 65535, b"\0\1\2\3" * 65535), np.full((65535, 1, 3), [1, 2, 3])),
        "65535_by_one.png": Outcome(png(65535, 1, b"\0" + b"\1\2\3" * 65535), np.full((1, 65535, 3), [1, 2, 3])),
        "one_by_one.png": Outcome(png(1, 1, b"\0\1\2\3"), np.array([[[1, 2, 3]]])),
        "one_by_one.jpg": Outcome(encode(np.full((1, 1, 3), 77, np.uint8), "JPEG"), np.full((1, 1, 3), 77), 2),
        "no_width.png": Outcome(png(0, 1, eight_bytes), error="damaged or cut off"),
        "too_few_rows.png": Outcome(png(WIDTH, HEIGHT, scanlines(PICTURE[:20])), error=NOT_DECODED),
        "lossy.webp": Outcome(encode(np.full((20, 30, 3), 99, np.uint8), "WEBP"), np.full((20, 30, 3), 99), 3),
        "lossless.webp": Outcome(webp, PICTURE),
        "color_and_alpha.webp": Outcome(encode(RGBA, "WEBP", lossless=True, exact=True), PICTURE),
        "animated.webp": Outcome(
            encode(FRAMES[0], "WEBP", save_all=True, append_images=FRAMES[1:], lossless=True), FIRST_FRAME
        ),
        "palette.gif": Outcome(gif, indexed),
        "animated.gif": Outcome(encode(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:]), FIRST_FRAME),
        "frame_outside.gif": Outcome(
            b"GIF89a"
            + struct.pack("<HHBBB", 2, 2, 0x80, 0, 0)
            + b"\0\0\0\xff\xff\xff,"
            + struct.pack("<HHHHB", 1, 1, 2, 2, 0)
            + b"\2\2\x44\1\0;",
            error=NOT_DECODED,
        ),
        "color.bmp": Outcome(encode(PICTURE, "BMP"), PICTURE),
        "palette.bmp": Outcome(encode(with_palette(), "BMP"), indexed),
        "one_bit.bmp": Outcome(encode(Image.fromarray(BLACK_AND_WHITE).convert("1"), "BMP"), BLACK_AND_WHITE_RGB),
        "color_and_alpha.bmp": Outcome(encode(RGBA, "BMP"), PICTURE),
        "color.tiff": Outcome(tiff(PICTURE), PICTURE),
        "motorola.tiff": Outcome(tiff(PICTURE, order=">"), PICTURE),
        "big.tiff": Outcome(tiff(PICTURE, big=True), PICTURE),
        "compressed.tiff": Outcome(tiff(PICTURE, compressed=True), PICTURE),
        "lzw.tiff": Outcome(encode(PICTURE, "TIFF", compression="tiff_lzw"), PICTURE),
        "fax.tiff": Outcome(
            encode(Image.fromarray(BLACK_AND_WHITE).convert("1"), "TIFF", compression="group4"), BLACK_AND_WHITE_RGB
        ),
        "grey.tiff": Outcome(tiff(GREY[..., None]), GREY_RGB),
        "white_is_zero.tiff": Outcome(tiff(GREY[..., None], t262=0), 255 - GREY_RGB),
        "grey_16.tiff": Outcome(tiff(SIXTEEN[..., None]), GREY_UPPER_EIGHT, 1),
        "color_16.tiff": Outcome(tiff(SIXTEEN_RGB), UPPER_EIGHT, 1),
        "color_16_motorola.tiff": Outcome(tiff(SIXTEEN_RGB, order=">"), UPPER_EIGHT, 1),
        "color_and_alpha.tiff": Outcome(tiff(RGBA, t338=2), PICTURE),
        "color_and_alpha_motorola.tiff": Outcome(tiff(RGBA, order=">", t338=2), PICTURE),
        "color_blended_with_alpha.tiff": Outcome(tiff(RGBA, t338=1), PICTURE),
        "cmyk.tiff": Outcome(encode(cmyk, "TIFF"), PICTURE, 1),
        "palette.tiff": Outcome(encode(with_palette(), "TIFF"), indexed),
        "pages.tiff": Outcome(encode(FRAMES[0], "TIFF", save_all=True, append_images=FRAMES[1:]), FIRST_FRAME),
        "float.tiff": Outcome(tiff((PICTURE / 255).astype(np.float32), t339=3), error=NUMBERS),
        "signed.tiff": Outcome(tiff(SIXTEEN_RGB.astype(np.int16), t339=2), error=NUMBERS),
        "thirty_two_bits.tiff": Outcome(tiff(SIXTEEN_RGB.astype(np.uint32)), error=NUMBERS),
        "five_channels.tiff": Outcome(tiff(np.concatenate([RGBA, ALPHA], axis=2)), error=NOT_DECODED),
        "grey.pgm": Outcome(encode(GREY, "PPM"), GREY_RGB),
        "color.jp2": Outcome(encode(PICTURE, "JPEG2000"), PICTURE),
    }
    for orientation in UPRIGHT:
        files[f"exif_{orientation}.jpg"] = with_exif("JPEG", orientation)
        files[f"exif_{orientation}_16.tiff"] = Outcome(
            tiff(SIXTEEN_RGB, t274=orientation), UPRIGHT[orientation](UPPER_EIGHT), 1
        )
    for kind in ("PNG", "WEBP", "TIFF"):
        files[f"exif_6.{kind.lower()}"] = with_exif(kind, 6)
    whole = {
        "jpg": jpeg,
        "png": plain_png,
        "webp": webp,
        "gif": gif,
        "bmp": encode(PICTURE, "BMP"),
        "tiff": tiff(PICTURE),
    }
    for kind, content in whole.items():
        for percent in (10, 50, 99):
            files[f"cut_at_{percent}_percent.{kind}"] = cut(content, percent / 100)
    files["cut_at_99_percent_progressive.jpg"] = cut(files["progressive.jpg"].content, 0.99)
    files["cut_at_50_percent_animated.png"] = cut(apng, 0.5)
    files["cut_at_60_percent_animated.gif"] = cut(files["animated.gif"].content, 0.6)
    if features.check("avif"):
        files["color.avif"] = Outcome(encode(PICTURE, "AVIF", quality=100), PICTURE, 6)
        files["color_and_alpha.avif"] = Outcome(encode(RGBA, "AVIF", quality=100), PICTURE, 6)
        files["exif_6.avif"] = with_exif("AVIF", 6)
    return files


ZOO = make_zoo()
each_file = pytest.mark.parametrize("name", ZOO)


def check(decoded: np.ndarray, outcome: Outcome) -> None:
    assert decoded.dtype == np.uint8
    assert decoded.shape == outcome.pixels.shape
    assert np.abs(decoded.astype(int) - outcome.pixels).max() <= outcome.tolerance


def test_the_zoo_is_large_enough():
    assert len(ZOO) >= 45


@each_file
@pytest.mark.promise("F14")
def test_a_file_has_its_outcome_and_the_size_that_its_header_states(name):
    outcome = ZOO[name]
    if outcome.pixels is None:
        with pytest.raises(DataError, match=rf"^{name}: {outcome.error}") as caught:
            decode_image(outcome.content, name)
        assert "\n" not in str(caught.value)
        return
    decoded = decode_image(outcome.content, name)
    check(decoded, outcome)
    assert image_size(outcome.content, name) == decoded.shape[:2]
    np.testing.assert_array_equal(DecodeImage(backend="pil")(outcome.content), decoded)


@pytest.fixture(scope="module")
def exported_transforms(tmp_path_factory):
    """The preprocessing of an exported model that hands on what is decoded, as float32."""
    plain = {"scale": 1.0, "mean": [0.0] * 3, "std": [1.0] * 3, "order": ""}
    description = {
        "Global": {"model_name": "net", "image_shape": [3, 8, 8], "class_num": 3, "softmax": True, "imports": []},
        "PreProcess": {"transform_ops": [{"DecodeImage": None}, {"NormalizeImage": plain}, {"ToCHWImage": None}]},
        "PostProcess": {"Topk": {"topk": 1}},
        "Parity": {"images": 8},
    }
    directory = tmp_path_factory.mktemp("export") / "bundle"
    with published(directory, KIND) as partial:
        for name in ("inference.json", "inference.pdiparams", "model.onnx"):
            (partial / name).write_bytes(bytes(100))
        (partial / "inference.yml").write_text(yaml.safe_dump(description), "utf-8")
    return read_bundle(directory).build_transforms()


@each_file
@pytest.mark.promise("F14")
def test_training_evaluation_inference_export_and_server_see_the_same_pixels(name, tmp_path, exported_transforms):
    outcome = ZOO[name]
    folder = tmp_path / "class"
    folder.mkdir()
    path = folder / name
    path.write_bytes(outcome.content)
    (tmp_path / "list.txt").write_text(f"class/{name} 0\n", "utf-8")
    plain = {"scale": 1.0, "mean": [0.0] * 3, "std": [1.0] * 3, "order": ""}
    infer = [DecodeImage(backend="pil"), NormalizeImage(**plain), ToCHWImage()]
    roads = [
        lambda: ImageNetDataset(str(tmp_path), str(tmp_path / "list.txt"), [DecodeImage(), ToCHWImage()]).sample(0)[0],
        lambda: ImageNetDataset(str(tmp_path), str(tmp_path / "list.txt"), [DecodeImage(draft=True)]).sample(0)[0],
        lambda: transform_image(path.read_bytes(), infer, str(path)),
        lambda: transform_image(path.read_bytes(), exported_transforms, str(path)),
        lambda: transform_image(path.read_bytes(), with_table(exported_transforms), str(path)),  # the server's
    ]
    if name.endswith((".jpg", ".png", ".bmp", ".webp", ".gif", ".tiff")):
        roads.append(lambda: ImageFolder(str(tmp_path), [DecodeImage()]).sample(0)[0])
    for road in roads:
        if outcome.pixels is None:
            with pytest.raises(DataError, match=outcome.error) as caught:
                road()
            assert name in str(caught.value)
        else:
            np.testing.assert_array_equal(road(), decode_image(path).transpose(2, 0, 1))


@pytest.mark.promise("F14")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_of_a_file_cut_off_anywhere_there_is_the_whole_image_or_none(kind):
    content = encode(PICTURE, kind)
    whole = decode_image(content)
    for length in range(len(content) - 1, max(0, len(content) - 300), -1):
        try:
            decoded = decode_image(content[:length])
        except DataError:
            continue
        np.testing.assert_array_equal(decoded, whole)


@pytest.mark.parametrize("reduce", [2, 4, 8])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jpeg_comes_at_a_part_of_its_size_rounded_up(reduce, orientation):
    # Blocks of 8 pixels of one value: each part of a block is that value.
    blocks = np.random.default_rng(0).integers(0, 256, (6, 8), np.uint8)
    large = np.kron(blocks, np.ones((8, 8), np.uint8))[:43, :61]
    content = encode(large, "JPEG", quality=100, exif=b"Exif\0\0" + exif(orientation))
    expected = UPRIGHT[orientation](np.repeat(large[::reduce, ::reduce, None], 3, axis=2))
    decoded = decode_image(content, reduce=reduce)
    check(decoded, Outcome(b"", expected, 2))
    np.testing.assert_array_equal(DecodeImage(draft=True).apply(content, reduce), decoded)
    color = decode_image(encode(PICTURE, "JPEG", quality=95), reduce=reduce)
    shrunk = cv2.resize(PICTURE, color.shape[1::-1], interpolation=cv2.INTER_AREA)
    check(color, Outcome(b"", shrunk, 8))


@pytest.mark.parametrize("name", ["color.png", "lossless.webp", "palette.gif", "color.bmp", "exif_6.tiff"])
def test_other_kinds_come_at_their_full_size_however_far_they_may_be_reduced(name):
    np.testing.assert_array_equal(decode_image(ZOO[name].content, reduce=4), ZOO[name].pixels)


@pytest.mark.promise("F14")
@pytest.mark.parametrize(
    "name", ["with space.png", "图片.png", "Größe.png", "a'b\"c.png", "-o.png", "x" * 250 + ".png"]
)
def test_a_file_may_have_any_name(tmp_path, name):
    (tmp_path / name).write_bytes(encode(PICTURE, "PNG"))
    np.testing.assert_array_equal(decode_image(tmp_path / name), PICTURE)
    np.testing.assert_array_equal(decode_image(str(tmp_path / name)), PICTURE)


@pytest.mark.promise("F14")
def test_a_name_need_not_be_utf8(tmp_path):
    (tmp_path / "class").mkdir()
    name = os.fsencode(tmp_path) + b"/class/\xff\xfe.png"
    try:
        with open(name, "wb") as file:
            file.write(encode(PICTURE, "PNG"))
    except OSError:
        pytest.skip("this file system wants UTF-8")
    np.testing.assert_array_equal(ImageFolder(str(tmp_path)).sample(0)[0], PICTURE.transpose(2, 0, 1))


@pytest.mark.promise("F14")
def test_what_is_no_readable_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "dangling").symlink_to(tmp_path / "none")
    (tmp_path / "to_pipe").symlink_to(tmp_path / "pipe")
    with open(tmp_path / "huge.jpg", "wb") as file:
        file.truncate(3 << 30)
    reasons = {
        "pipe": "not a regular file",
        "to_pipe": "not a regular file",
        "folder.png": "not a regular file",
        "loop": "cannot be read \\(Too many levels of symbolic links\\)",
        "dangling": "cannot be read \\(No such file or directory\\)",
        "none.jpg": "cannot be read \\(No such file or directory\\)",
        "null\0byte.jpg": "cannot be read \\(embedded null byte\\)",
        "huge.jpg": "3221225472 bytes, more than the 2147483648 that are read at once",
    }
    for name, reason in reasons.items():
        with pytest.raises(DataError, match=f": {reason}$") as caught:
            decode_image(os.path.join(tmp_path, name))
        assert str(caught.value).startswith(os.path.join(tmp_path, name))
    with pytest.raises(DataError, match="^/dev/zero: not a regular file$"):
        decode_image("/dev/zero")


def test_a_link_to_a_file_is_that_file(tmp_path):
    (tmp_path / "file.png").write_bytes(encode(PICTURE, "PNG"))
    (tmp_path / "link.png").symlink_to("file.png")
    np.testing.assert_array_equal(decode_image(tmp_path / "link.png"), PICTURE)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_says_so(tmp_path):
    path = tmp_path / "closed.png"
    path.write_bytes(encode(PICTURE, "PNG"))
    path.chmod(0)
    with pytest.raises(DataError, match="cannot be read \\(Permission denied\\)$"):
        decode_image(path)
