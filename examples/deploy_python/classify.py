# SPDX-License-Identifier: Apache-2.0
"""Classify images with an exported model and nothing of ppcls: a bundle's model.onnx and inference.yml are enough.

    python classify.py BUNDLE IMAGE...                                    a line of JSON for each image
    python classify.py BUNDLE --list FILE --root DIR --accuracy acc.log   the accuracy on a list of "path label" lines

Exit code 2: the bundle asks for something that is not in this example; 3: an image cannot be read.
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
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def normalize(image, scale=None, mean=None, std=None, **unused):
    """``(image * scale - mean) / std`` in float32; ``order`` is "" in what ends in ToCHWImage."""
    numerator, _, denominator = str("1/255" if scale is None else scale).partition("/")
    scale = np.float32(float(numerator) / float(denominator or 1))
    mean, std = np.float32(mean or [0.485, 0.456, 0.406]), np.float32(std or [0.229, 0.224, 0.225])
    return (image.astype(np.float32) * scale - mean) / std


OPERATIONS = {
    "DecodeImage": lambda image, **unused: image,  # `decode` has done it
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
        (self.answer,) = description["PostProcess"].values()
        self.ends_in_softmax = description["Global"]["softmax"]
        unknown = [name for name, _ in self.steps if name not in OPERATIONS]
        if unknown or "Topk" not in description["PostProcess"] or description["Global"].get("imports"):
            raise NotImplementedError(
                unknown[0] if unknown else "a postprocessing other than Topk, or one's own modules"
            )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        path = os.path.join(bundle, graph)
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

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
        best = np.argsort(-probabilities, kind="stable")[: self.answer["topk"]].tolist()
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
    ranks = []
    for path, label in samples:
        probabilities = classifier(os.path.join(root, path))
        ranks.append(np.argsort(-probabilities, kind="stable").tolist().index(int(label)))
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
    arguments = parser.parse_args()
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
            with open(arguments.accuracy, "w", encoding="utf-8") as file:
                file.write("\n".join([*lines, ""]))
            print(*lines, sep="\n")
    except NotImplementedError as error:
        print(f"{arguments.bundle}: {error} is not in this example; use tools/infer.py --bundle", file=sys.stderr)
        return 2
    except OSError as error:
        print(error, file=sys.stderr)
        return 3
    return code


if __name__ == "__main__":
    sys.exit(main())
