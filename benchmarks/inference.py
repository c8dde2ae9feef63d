# SPDX-License-Identifier: Apache-2.0
"""How long one image takes from its file to its answer: the time of ours over that of others, in one run.

    python benchmarks/inference.py [--images folder/of/JPEGs] [--rounds 15] [--model TinyDarkNet]

It exports untrained models and asks them for one image at a time. All sides take turns, so that they meet the same
load; the figure is the median of the ratios of the rounds, and beside it, for a machine that others use as well, the
ratio of the best turns. The files are held in memory by the system, so that the disk is not measured.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("GLOG_minloglevel", "2")
sys.path.insert(0, os.path.abspath(os.path.join(os.path.dirname(__file__), "..")))

import cv2
import numpy as np
import onnxruntime
import paddle

from ppcls.config import load_config
from ppcls.deploy.bundle import GRAPH, ONNX_GRAPH, PARAMETERS
from ppcls.deploy.classifier import Classifier
from ppcls.engine import Engine
from ppcls.utils.machine import usable_cores

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
NUM_IMAGES = 20
PHOTO_SIZE = (500, 375)
"""Width and height of images that are made up; the usual ones of ImageNet."""
TOPK = 5
SETTLE_SECONDS = 0.25
"""Threads of an engine wait busily for a while after a call, Paddle's for 0.2 s, and would slow down the next side."""
WARM_UP_SECONDS = 0.05
TURN_SECONDS = 0.2
FEWEST = 3


class Model(NamedTuple):
    """What is measured.

    Attributes:
        config: its file.
        file_size: width and height of its image files; None for photos as they are.
        size: height and width of its input.
        resize_short: as its preprocessing has it; None where that scales to ``size`` at once.
        mean: as its preprocessing has it.
        std: as its preprocessing has it.
        has_int8: whether it is measured in whole numbers as well.
    """

    config: str
    file_size: tuple[int, int] | None
    size: int
    resize_short: int | None
    mean: Sequence[float]
    std: Sequence[float]
    has_int8: bool


MODELS = {
    "DenseNet121": Model(
        "ImageNet/DenseNet/DenseNet121.yaml", None, 224, 256, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), True
    ),
    "TinyDarkNet": Model("CIFAR10/TinyDarkNet.yaml", (32, 32), 32, None, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), False),
}

Side = Callable[[int], object]
"""Answers the image of a number."""


class PaddleClasWay:
    """As PaddleClas's deployment answers: OpenCV, NumPy in floats, Paddle Inference without oneDNN.

    Args:
        bundle: graph and weights.
        model: what the preprocessing does.
    """

    def __init__(self, bundle: Path, model: Model) -> None:
        config = paddle.inference.Config(str(bundle / GRAPH), str(bundle / PARAMETERS))
        config.disable_mkldnn()
        config.set_cpu_math_library_num_threads(usable_cores())
        config.disable_glog_info()
        config.switch_ir_optim(True)
        # PaddleClas also asks for the optimization of memory, with which Paddle 3.3.1 makes no predictor.
        self.predictor = paddle.inference.create_predictor(config)
        self.input = self.predictor.get_input_handle(self.predictor.get_input_names()[0])
        self.output = self.predictor.get_output_handle(self.predictor.get_output_names()[0])
        self.model = model
        self.mean, self.std = (np.array(each, np.float32).reshape(1, 1, 3) for each in (model.mean, model.std))

    def __call__(self, path: str) -> list[int]:
        """The numbers of the most probable classes."""
        self.input.copy_from_cpu(self.prepare(path)[None])
        self.predictor.run()
        return self.output.copy_to_cpu()[0].argsort()[-TOPK:][::-1].tolist()

    def prepare(self, path: str) -> np.ndarray:
        """The graph's input."""
        image, size = cv2.imread(path)[:, :, ::-1], self.model.size
        if self.model.resize_short:
            factor = self.model.resize_short / min(image.shape[:2])
            height, width = (round(side * factor) for side in image.shape[:2])
            top, left = (height - size) // 2, (width - size) // 2
            image = cv2.resize(image, (width, height))[top : top + size, left : left + size]
        else:
            image = cv2.resize(image, (size, size))
        image = (image.astype("float32") * np.float32(1 / 255) - self.mean) / self.std
        return image.transpose(2, 0, 1).copy()


def bare(graph: Path, ready: Sequence[np.ndarray], paths: Sequence[str]) -> Side:
    """ONNX Runtime as it comes, on inputs that are there already; of the files nothing but OpenCV's decoding."""
    run = on_ready(graph, ready)

    def answer(number: int) -> object:
        cv2.imread(paths[number])
        return run(number)

    return answer


def on_ready(graph: Path, ready: Sequence[np.ndarray]) -> Side:
    """ONNX Runtime as it comes, on inputs that are there already."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda number: session.run(None, {name: ready[number]})


def engine_alone(classifier: Classifier, ready: Sequence[np.ndarray]) -> Side:
    return lambda number: classifier.graph(ready[number])


def make_images(source: str | None, folder: Path, size: tuple[int, int] | None) -> list[str]:
    """JPEG files of a size: real ones, or of noise."""
    folder.mkdir()
    photos = sorted(path for path in Path(source or folder).rglob("*") if path.suffix.lower() in (".jpeg", ".jpg"))
    if source and not photos:
        sys.exit(f"--images: {source}: there are no JPEG files in it")
    rng = np.random.default_rng(0)
    paths = []
    for number in range(NUM_IMAGES):
        if photos:
            data = photos[number * len(photos) // NUM_IMAGES].read_bytes()
        else:
            noise = rng.integers(0, 256, [48, 64, 3], np.uint8)
            data = cv2.imencode(".jpg", cv2.resize(noise, PHOTO_SIZE, interpolation=cv2.INTER_CUBIC))[1].tobytes()
        if size:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            data = cv2.imencode(".jpg", cv2.resize(image, size, interpolation=cv2.INTER_AREA))[1].tobytes()
        paths.append(str(folder / f"{number}.jpg"))
        Path(paths[-1]).write_bytes(data)
    return paths


def export(model: Model, folder: Path, paths: Sequence[str]) -> Path:
    """A bundle of the untrained model, with names for its classes."""
    (folder / "list.txt").write_text("".join(f"{path} 0\n" for path in paths), encoding="utf-8")
    operations = [
        "DecodeImage: {}",
        *([f"ResizeImage: {{resize_short: {model.resize_short}}}"] if model.resize_short else []),
        f"{'CropImage' if model.resize_short else 'ResizeImage'}: {{size: {model.size}}}",
        f"NormalizeImage: {{mean: {list(model.mean)}, std: {list(model.std)}, order: ''}}",
    ]
    dataset = (
        f"{{name: ImageNetDataset, image_root: /, cls_label_path: {folder / 'list.txt'}, "
        f"transform_ops: [{', '.join(operations)}]}}"
    )
    overrides = [
        "Global.log_ranks=1",  # this process is number 0, and says nothing
        f"Global.output_dir={folder / 'output'}",
        f"Global.save_inference_dir={folder / 'bundle'}",
        f"Global.pretrained_model={folder / 'weights.pdparams'}",
        f"Global.export_for=[{'onnxruntime, int8' if model.has_int8 else 'onnxruntime'}]",
        "Global.allow_int8_loss=true",
        f"DataLoader.Train.dataset={dataset}",
        f"DataLoader.Eval.dataset={dataset}",
        "DataLoader.Eval.loader.num_workers=0",
        f"Infer.PostProcess={{name: Topk, topk: {TOPK}, class_id_map_file: {folder / 'labels.txt'}}}",
    ]
    config = load_config(str(CONFIGS / model.config), overrides)
    untrained = config.Arch.model()
    paddle.save(untrained.state_dict(), str(folder / "weights.pdparams"))
    class_num = config.Arch.model.kwargs["class_num"]
    (folder / "labels.txt").write_text("".join(f"{n} class {n}\n" for n in range(class_num)), encoding="utf-8")
    return Engine(config).export()


def turn(side: Side) -> float:
    """Seconds that an answer takes: the median of a turn."""
    time.sleep(SETTLE_SECONDS)
    _calls(side, WARM_UP_SECONDS)
    return statistics.median(_calls(side, TURN_SECONDS))


def _calls(side: Side, seconds: float) -> list[float]:
    taken: list[float] = []
    while len(taken) < FEWEST or sum(taken) < seconds:
        start = time.perf_counter()
        side(len(taken) % NUM_IMAGES)
        taken.append(time.perf_counter() - start)
    return taken


def measure(name: str, images: str | None, rounds: int) -> None:
    """Print the figures of a model."""
    model = MODELS[name]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        paths = make_images(images, folder / "images", model.file_size)
        bundle = export(model, folder, paths)
        classifier = Classifier(bundle, "onnxruntime")
        ready = [np.ascontiguousarray(classifier.prepare(Path(path).read_bytes(), path))[None] for path in paths]
        paddle_way = PaddleClasWay(bundle, model)
        sides: dict[str, Side] = {
            "ours": lambda number: next(classifier([paths[number]])),
            "bare": bare(bundle / ONNX_GRAPH, ready, paths),
            "fp32": engine_alone(classifier, ready),
            **({"int8": engine_alone(Classifier(bundle, "int8"), ready)} if model.has_int8 else {}),
            "paddle": lambda number: paddle_way(paths[number]),
        }
        seconds: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(rounds):
            for side, answer in sides.items():
                seconds[side].append(turn(answer))
    for title, side, baseline, target in (
        ("image file to answer, over bare ONNX Runtime and cv2.imread", "ours", "bare", 1.10),
        ("image file to answer, over Paddle Inference plain as PaddleClas uses it", "ours", "paddle", 0.35),
        ("int8 over fp32, the engine alone", "int8", "fp32", 0.70),
    ):
        if side in sides:
            ours, theirs = seconds[side], seconds[baseline]
            ratio = statistics.median(a / b for a, b in zip(ours, theirs))
            times = f"{1e3 * statistics.median(ours):>8.3f} {1e3 * statistics.median(theirs):>8.3f}"
            best = min(ours) / min(theirs)
            print(f"{name}: {title:<72} {times} {ratio:>6.2f} {best:>6.2f} {target:>6.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", help="a folder with JPEG files, such as some of ImageNet (default: made-up ones)")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each side (default: 15)")
    parser.add_argument("--model", choices=MODELS, action="append", help="what is measured; all by default")
    arguments = parser.parse_args()
    print(f"{'case':<85} {'ms':>8} {'baseline':>8} {'ratio':>6} {'best':>6} {'target':>6}")
    for name in arguments.model or MODELS:
        measure(name, arguments.images, arguments.rounds)


if __name__ == "__main__":
    main()
