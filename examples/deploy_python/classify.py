# SPDX-License-Identifier: Apache-2.0
"""Classify images with an exported model and nothing of ppcls: a bundle's model.onnx and inference.yml are enough.

    python classify.py BUNDLE IMAGE...                                    a line of JSON for each image
    python classify.py BUNDLE --list FILE --root DIR --accuracy acc.log   the accuracy on a list of "path label" lines

Exit code 2: the bundle asks for something that is not in this example, or has no such graph; 3: an image or a line of
the list cannot be read; 5: the accuracy cannot be written.
"""

import argparse
import json
import os
import sys

import cv2
import numpy as np
import onnxruntime
import yaml


def decode(path):
    """The pixels, uint8 [H, W, 3], red first; OpenCV turns photos as their camera was held."""
    data = np.fromfile(path, np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        raise OSError("no image that OpenCV reads")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def resize(image, size=None, resize_short=None, interpolation=None, backend="cv2", return_numpy=True):
    """Scaled to a size, or so that the shorter side has that length."""
    if backend != "cv2" or interpolation not in (None, "bilinear"):
        raise NotImplementedError(f"ResizeImage by {backend}, {interpolation}")
    height, width = image.shape[:2]
    factor = (resize_short or 0) / min(height, width)
    to = (round(width * factor), round(height * factor)) if size is None else np.broadcast_to(size, 2).tolist()
    return cv2.resize(image, to, interpolation=cv2.INTER_LINEAR)


def crop(image, size):
    """The middle of the image."""
    width, height = np.broadcast_to(size, 2)
    if width > image.shape[1] or height > image.shape[0]:
        raise OSError(f"smaller than the {width} x {height} that are cut out")
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def normalize(image, scale=None, mean=None, std=None, order="chw", output_fp16=False, channel_num=3):
    """``(image * scale - mean) / std`` in float32."""
    if order not in ("", "hwc") or output_fp16 or channel_num != 3:
        raise NotImplementedError(f"NormalizeImage with order {order!r}, output_fp16 {output_fp16}")
    numerator, _, denominator = str("1/255" if scale is None else scale).partition("/")
    scale = np.float32(float(numerator) / float(denominator or 1))
    mean, std = np.float32(mean or [0.485, 0.456, 0.406]), np.float32(std or [0.229, 0.224, 0.225])
    return (image.astype(np.float32) * scale - mean) / std


def decoded(image, to_np=True, to_rgb=True, channel_first=False, backend="cv2", draft=False):
    """The image: `decode` has done it."""
    if not to_rgb or channel_first or draft:
        raise NotImplementedError(f"DecodeImage with to_rgb {to_rgb}, channel_first {channel_first}, draft {draft}")
    return image


OPERATIONS = {
    "DecodeImage": decoded,
    "ResizeImage": resize,
    "CropImage": crop,
    "NormalizeImage": normalize,
    "ToCHWImage": lambda image: image.transpose(2, 0, 1),
}


class Classifier:
    """A bundle: image files to probabilities."""

    def __init__(self, bundle, graph):
        with open(os.path.join(bundle, "inference.yml"), encoding="utf-8") as file:
            description = yaml.safe_load(file)
        self.steps = [
            (name, arguments or {})
            for step in description["PreProcess"]["transform_ops"]
            for name, arguments in step.items()
        ]
        self.answer = description["PostProcess"].get("Topk") or {}
        self.ends_in_softmax = description["Global"]["softmax"]
        unknown = [name for name, _ in self.steps if name not in OPERATIONS]
        if unknown or "Topk" not in description["PostProcess"] or description["Global"].get("imports"):
            raise NotImplementedError(
                unknown[0] if unknown else "a postprocessing other than Topk, or one's own modules"
            )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        path = os.path.join(bundle, graph)
        if not os.path.isfile(path):
            raise NotImplementedError(f"no {graph} (export with --onnx, or --int8), and another engine")
        try:
            self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its classes have no other base
            raise NotImplementedError(f"{graph}, which ONNX Runtime cannot load,") from error

    def __call__(self, path):
        """The probability of each class."""
        image = decode(path)
        for name, arguments in self.steps:
            image = OPERATIONS[name](image, **arguments)
        outputs = self.session.run(None, {self.session.get_inputs()[0].name: np.ascontiguousarray(image[None])})[0][0]
        if self.ends_in_softmax:
            return outputs
        exponents = np.exp(outputs - outputs.max())
        return exponents / exponents.sum()

    def result(self, path, probabilities):
        """What tools/infer.py prints for an image."""
        best = np.argsort(-probabilities, kind="stable")[: self.answer.get("topk", 1)].tolist()
        names = self.answer.get("label_list")
        return {
            "class_ids": best,
            "scores": [round(float(probabilities[number]), 5) for number in best],
            "file_name": path,
            "label_names": [names[number] for number in best] if names else [],
        }


def accuracy(classifier, list_file, root):
    """The lines of an accuracy file: how many images have their class first, and among the first five."""
    with open(list_file, encoding="utf-8-sig") as file:
        samples = [line.rsplit(maxsplit=1) for line in file if line.strip()]
    if not samples:
        raise OSError(f"{list_file}: there is no image in it")
    ranks = []
    for number, sample in enumerate(samples, 1):
        if len(sample) != 2 or not sample[1].isdecimal():
            raise OSError(f"{list_file}: line {number} is no path with a label behind it")
        path = os.path.join(root, sample[0])
        try:
            probabilities = classifier(path)
        except OSError as error:
            raise OSError(f"{path}: {error}") from error
        if int(sample[1]) >= len(probabilities):
            raise OSError(f"{list_file}: line {number}: there are only {len(probabilities)} classes")
        ranks.append(np.argsort(-probabilities, kind="stable").tolist().index(int(sample[1])))
    counts = {k: sum(rank < k for rank in ranks) for k in (1, 5)}
    shares = {k: f"{100 * count / len(ranks):.2f}%" for k, count in counts.items()}
    lines = [f"top{k}_correct={count}, tot={len(ranks)}, acc={shares[k]}" for k, count in counts.items()]
    return [*lines, ", ".join(f"'top_{k}_accuracy': {share}" for k, share in shares.items())]


def main():
    """Read the command line, then answer; gives the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", help="a directory that tools/export_model.py --onnx wrote")
    parser.add_argument("images", nargs="*", help="image files")
    parser.add_argument("--graph", default="model.onnx", help="the file in it: model.onnx, or model_int8.onnx")
    parser.add_argument("--list", help='a file of "path label" lines')
    parser.add_argument("--root", default="", help="what its paths start from")
    parser.add_argument("--accuracy", help="the file that the accuracy on the list is written to")
    arguments = parser.parse_intermixed_args()
    if bool(arguments.images) == bool(arguments.list) or bool(arguments.list) != bool(arguments.accuracy):
        parser.error("give images, or --list and --accuracy")
    code = 0
    try:
        classifier = Classifier(arguments.bundle, arguments.graph)
        for path in arguments.images:
            try:
                result = classifier.result(path, classifier(path))
            except OSError as error:
                result, code = {"file_name": path, "error": str(error)}, 3
            print(json.dumps(result, ensure_ascii=False), flush=True)
        if arguments.list:
            lines = accuracy(classifier, arguments.list, arguments.root)
            print(*lines, sep="\n")
            try:
                with open(arguments.accuracy, "w", encoding="utf-8") as file:
                    file.write("\n".join([*lines, ""]))
            except OSError as error:
                print(f"{arguments.accuracy}: cannot be written ({error.strerror})", file=sys.stderr)
                return 5
    except NotImplementedError as error:
        print(f"{arguments.bundle}: {error} is not in this example; use tools/infer.py --bundle", file=sys.stderr)
        return 2
    except OSError as error:
        print(error, file=sys.stderr)
        return 3
    return code


if __name__ == "__main__":
    sys.exit(main())
