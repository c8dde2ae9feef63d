# SPDX-License-Identifier: Apache-2.0
"""The examples for others' programs, in plain Python and in C++, answer as ``Classifier`` does.

The C++ one is built where there are a compiler, its libraries and ONNX Runtime's headers; ``ONNXRUNTIME`` names a
folder with ``include``, and with ``lib`` if it is not the library of Python's package that is to be linked.
"""

import ast
import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import paddle
import pytest
import toy_bundle
import yaml
from paddle import nn
from PIL import Image

from ppcls.data.transforms.crop import CropImage
from ppcls.data.transforms.decode import DecodeImage
from ppcls.data.transforms.geometry import ResizeImage
from ppcls.data.transforms.tensor import NormalizeImage, ToCHWImage
from ppcls.deploy import parity, to_onnx
from ppcls.deploy.classifier import Classifier
from ppcls.deploy.export import Wanted, export_model

pytest.importorskip("paddle2onnx")
onnxruntime = pytest.importorskip("onnxruntime")

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LABELS = ['夜 "night"', "grass\\", "sea: deep", "fire", "snow", "wood"]
STANDARD = {"scale": 1 / 255, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "order": ""}
SIZES = [(64, 48), (48, 64), (200, 331), (40, 40), (31, 90), (80, 80), (411, 300)]
PREPARATIONS = {
    "shorter side, floats": ({"resize_short": 40}, {"size": 32}, False),
    "both sides, bytes": ({"size": [45, 37]}, {"size": [32, 36]}, True),
}


def picture(rng, height, width):
    """Something as smooth as a photo, with some noise."""
    coarse = 0.6 * rng.uniform(0, 255, 3) + 0.4 * rng.uniform(0, 255, [5, 4, 3])
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) + rng.normal(0, 12, [height, width, 3])
    return np.clip(image, 0, 255).astype(np.uint8)


def run_here(module, *arguments):
    """In place of a process of its own."""
    importlib.import_module(module).main(*map(str, arguments))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Files of several sizes, colours and formats; also turned, grey, transparent, of 16 bits, and interlaced."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(3)
    for number, (height, width) in enumerate(SIZES):
        cv2.imwrite(
            str(folder / f"photo {number}.jpg"),
            picture(rng, height, width),
            [cv2.IMWRITE_JPEG_QUALITY, 70 + 4 * number],
        )
        cv2.imwrite(str(folder / f"drawing_{number}.png"), picture(rng, height, width))
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        Image.fromarray(picture(rng, 60, 90)).save(folder / f"turned_{turn}.jpg", exif=exif, quality=95)
    Image.fromarray(picture(rng, 50, 70)).convert("L").save(folder / "grey.jpg")
    Image.fromarray(picture(rng, 50, 70)).save(folder / "progressive.jpg", progressive=True, subsampling=2)
    Image.fromarray(picture(rng, 50, 70)).convert("P").save(folder / "palette.png")
    alpha = np.dstack([picture(rng, 50, 70), rng.integers(0, 256, [50, 70], np.uint8)])
    Image.fromarray(alpha).save(folder / "transparent.png")
    cv2.imwrite(str(folder / "deep.png"), picture(rng, 50, 70).astype(np.uint16) * 257)
    return sorted(map(str, folder.iterdir()))


@pytest.fixture(scope="module", params=PREPARATIONS)
def bundle(request, tmp_path_factory, images):
    """A bundle of a small network, which gives probabilities, or logits where it takes bytes."""
    resize, crop, is_folded = PREPARATIONS[request.param]
    paddle.seed(6)
    net = nn.Sequential(
        nn.Conv2D(3, 16, 3, stride=2), nn.ReLU(), nn.Conv2D(16, 24, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2D(2)
    )
    net = nn.Sequential(net, nn.Flatten(), nn.Linear(96, len(LABELS)))
    net[2].weight.set_value(net[2].weight * 6)  # so that answers differ
    ops = [DecodeImage(), ResizeImage(**resize), CropImage(**crop), NormalizeImage(**STANDARD), ToCHWImage()]
    named = {
        "DecodeImage": None,
        "ResizeImage": resize,
        "CropImage": crop,
        "NormalizeImage": STANDARD,
        "ToCHWImage": None,
    }
    description = {
        "Global": {"model_name": "net"},
        "PreProcess": {"transform_ops": [{name: given} for name, given in named.items()]},
        "PostProcess": {"Topk": {"topk": 3, "label_list": LABELS}},
    }
    width, height = np.broadcast_to(crop["size"], 2).tolist()
    directory = tmp_path_factory.mktemp("bundle") / "net"
    stored = [Path(path).read_bytes() for path in images]
    wanted = Wanted((3, height, width), not is_folded, onnx=True, fold_preprocess=is_folded)
    with pytest.MonkeyPatch.context() as patch:
        for module in (parity, to_onnx):
            patch.setattr(module, "failure_of_module", run_here)
        export_model(net, directory, wanted, ops, description, stored)
    return directory


@pytest.fixture(scope="module")
def expected(bundle, images):
    """What `Classifier` answers; not the same to all."""
    answers = list(Classifier(bundle, "onnxruntime", threads=1)(images))
    assert len({answer["class_ids"][0] for answer in answers}) > 1
    return answers


@pytest.fixture(scope="module")
def listed(tmp_path_factory, images, expected):
    """A list, and the lines of the accuracy file that follow from the expected answers."""
    file = tmp_path_factory.mktemp("list") / "list.txt"
    labels = [number % len(LABELS) for number in range(len(images))]
    file.write_text("".join(f"{Path(path).name} {label}\n" for path, label in zip(images, labels)) + "\n")
    firsts = sum(answer["class_ids"][0] == label for answer, label in zip(expected, labels))
    share = f"{100 * firsts / len(images):.2f}%"
    return file, f"top1_correct={firsts}, tot={len(images)}, acc={share}\n", f"'top_1_accuracy': {share}, 'top_5_acc"


def run(*command):
    finished = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    return finished.returncode, finished.stdout, finished.stderr


def assert_answers(told, expected, tolerance):
    given = [json.loads(line) for line in told.splitlines()]
    assert len(given) == len(expected)
    for answer, wanted in zip(given, expected):
        assert {**answer, "scores": None} == {**wanted, "scores": None}
        assert answer["scores"] == pytest.approx(wanted["scores"], abs=tolerance)


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """The C++ example, compiled."""
    folder = tmp_path_factory.mktemp("cpp")
    given = os.environ.get("ONNXRUNTIME")
    if not given or not (Path(given) / "include" / "onnxruntime_cxx_api.h").is_file():
        pytest.skip("no headers of ONNX Runtime; set ONNXRUNTIME to a folder with include/onnxruntime_cxx_api.h")
    if not shutil.which("cmake") or not (shutil.which("c++") or shutil.which("g++")):
        pytest.skip("no compiler, or no cmake")
    root = Path(given)
    if not (root / "lib").is_dir():
        root = folder / "onnxruntime"
        (root / "lib").mkdir(parents=True)
        (root / "include").symlink_to(Path(given).resolve() / "include")
        (library,) = Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*")
        for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
            (root / "lib" / name).symlink_to(library)
    code, told, failed = run("cmake", "-S", EXAMPLES / "deploy_cpp", "-B", folder / "build", f"-DONNXRUNTIME={root}")
    if code and "Could NOT find" in failed + told:
        pytest.skip(failed.strip().splitlines()[-1])
    assert code == 0, failed
    code, told, failed = run("cmake", "--build", folder / "build")
    assert code == 0 and "warning" not in told + failed, told + failed
    return folder / "build" / "classify"


@pytest.fixture(params=["python", "cpp"])
def example(request):
    """The command of an example, and how far its scores may be from those of `Classifier`."""
    if request.param == "python":
        return [sys.executable, EXAMPLES / "deploy_python" / "classify.py"], 1e-5
    return [request.getfixturevalue("built")], 1e-3


def test_an_example_answers_as_the_classifier(example, bundle, images, expected):
    command, tolerance = example
    code, told, failed = run(*command, bundle, *images)
    assert (code, failed) == (0, "")
    assert_answers(told, expected, tolerance)


def test_an_example_writes_an_accuracy_file(example, bundle, images, listed, tmp_path):
    command, _ = example
    file, first, last = listed
    accuracy = tmp_path / "acc.log"
    given = ["--list", file, "--root", Path(images[0]).parent, "--accuracy", accuracy]
    code, told, failed = run(*command, bundle, *given)
    assert (code, failed) == (0, "")
    assert told == accuracy.read_text()
    lines = told.splitlines(keepends=True)
    assert lines[0] == first and lines[1].startswith("top5_correct=") and lines[2].startswith(last)


def test_an_example_says_which_image_cannot_be_read(example, bundle, images, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"\xff\xd8 no image")
    (tmp_path / "empty.png").write_bytes(b"")
    half = tmp_path / "half.png"
    half.write_bytes(Path(next(path for path in images if path.endswith("_2.png"))).read_bytes()[:60])
    places = [bad, images[0], tmp_path / "empty.png", tmp_path / "none.jpg", half]
    code, told, _ = run(*example[0], bundle, *places)
    assert code == 3
    lines = [json.loads(line) for line in told.splitlines()]
    assert [("error" in line, line["file_name"]) for line in lines] == [
        (path != images[0], str(path)) for path in places
    ]


@pytest.mark.parametrize(
    "number_and_step",
    [
        (0, {"DecodeImage": {"to_rgb": False}}),
        (1, {"ResizeImage": {"size": 32, "backend": "pil"}}),
        (2, {"Rotate": None}),
    ],
)
def test_an_example_refuses_what_it_does_not_know(example, bundle, images, tmp_path, number_and_step):
    number, step = number_and_step
    shutil.copytree(bundle, tmp_path / "other")
    path = tmp_path / "other" / "inference.yml"
    description = yaml.safe_load(path.read_text("utf-8"))
    description["PreProcess"]["transform_ops"][number] = step
    path.write_text(yaml.safe_dump(description), "utf-8")
    code, told, failed = run(*example[0], tmp_path / "other", images[0])
    assert (code, told) == (2, "")
    assert "is not in this example" in failed and len(failed.splitlines()) == 1


def test_an_example_names_the_graph_that_is_not_there(example, bundle, images, tmp_path):
    other = shutil.copytree(bundle, tmp_path / "other")
    (other / "model.onnx").unlink()
    code, told, failed = run(*example[0], other, images[0])
    assert (code, told, len(failed.splitlines())) == (2, "", 1) and "model.onnx" in failed


@pytest.mark.parametrize("line", ["no label", "{image} -1", "{image} 6", "{image}", ""])
def test_an_example_refuses_a_list_that_is_none_in_one_line(example, bundle, images, tmp_path, line):
    (tmp_path / "list.txt").write_text(line.format(image=Path(images[0]).name) + "\n")
    accuracy = tmp_path / "acc.log"
    given = ["--list", tmp_path / "list.txt", "--root", Path(images[0]).parent, "--accuracy", accuracy]
    code, told, failed = run(*example[0], bundle, *given)
    assert (code, told, len(failed.splitlines())) == (3, "", 1) and not accuracy.exists()


def test_an_example_says_which_image_is_too_small(example, images, tmp_path):
    directory = toy_bundle.write_bundle(tmp_path / "colours")
    path = directory / "inference.yml"
    description = yaml.safe_load(path.read_text("utf-8"))
    description["PreProcess"]["transform_ops"].insert(1, {"CropImage": {"size": 4000}})
    path.write_text(yaml.safe_dump(description), "utf-8")
    code, told, failed = run(*example[0], directory, images[0])
    assert (code, failed) == (3, "") and "smaller than" in json.loads(told)["error"]


def test_an_example_reads_a_scale_as_people_write_it(example, images, tmp_path):
    directory = toy_bundle.write_bundle(tmp_path / "colours")
    code, told, failed = run(*example[0], directory, *images)
    assert (code, failed) == (0, "")
    assert_answers(told, list(Classifier(directory, "onnxruntime", threads=1)(images)), 1e-3)


def test_the_example_in_python_imports_nothing_of_ppcls():
    tree = ast.parse((EXAMPLES / "deploy_python" / "classify.py").read_text("utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert not any(isinstance(node, ast.ImportFrom) for node in ast.walk(tree))
    assert imported == {"argparse", "json", "os", "sys", "cv2", "numpy", "onnxruntime", "yaml"}
