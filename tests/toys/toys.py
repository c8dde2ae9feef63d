# SPDX-License-Identifier: Apache-2.0
"""Small images, a file that trains `ToyNet` on them, and shorthands to run it."""

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np

SIZE = 16
CLASSES = ("night", "grass", "sea", "fire")
COLORS = np.array([[30, 30, 30], [60, 170, 60], [50, 80, 200], [220, 120, 40]], np.float64)

YAML = """
Global:
  imports: [toy_arch]
  output_dir: {root}/output
  save_inference_dir: {root}/inference
  epochs: 2
  print_batch_step: 2
  image_shape: [3, 16, 16]
  seed: 7
Arch: {{name: ToyNet, class_num: 4}}
Loss:
  Train: [CELoss: {{epsilon: 0.1}}]
  Eval: [CELoss: ]
Optimizer:
  name: Momentum
  momentum: 0.9
  lr: {{name: Piecewise, learning_rate: 0.05, decay_epochs: [3], values: [0.05, 0.005]}}
  regularizer: {{name: L2, coeff: 0.0001}}
DataLoader:
  Train:
    dataset:
      name: ImageNetDataset
      image_root: {data}
      cls_label_path: {data}/train.txt
      transform_ops:
        - DecodeImage: {{to_rgb: true}}
        - RandCropImage: {{size: 16, scale: [0.6, 1.0]}}
        - RandFlipImage: {{flip_code: 1}}
        - NormalizeImage: {{scale: 1.0/255.0, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5], order: ''}}
    sampler: {{name: DistributedBatchSampler, batch_size: 8, drop_last: true, shuffle: true}}
    loader: {{num_workers: 0}}
  Eval:
    dataset:
      name: ImageNetDataset
      image_root: {data}
      cls_label_path: {data}/val.txt
      transform_ops:
        - DecodeImage: {{to_rgb: true}}
        - NormalizeImage: {{scale: 1.0/255.0, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5], order: ''}}
    sampler: {{name: DistributedBatchSampler, batch_size: 10, drop_last: false, shuffle: false}}
    loader: {{num_workers: 0}}
Infer:
  infer_imgs: {data}/images/2
  batch_size: 3
  transforms:
    - DecodeImage: {{to_rgb: true}}
    - NormalizeImage: {{scale: 1.0/255.0, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5], order: ''}}
    - ToCHWImage:
  PostProcess: {{name: Topk, topk: 2, class_id_map_file: {data}/labels.txt}}
Metric:
  Train: [TopkAcc: {{topk: [1, 2]}}]
  Eval: [TopkAcc: {{topk: [1, 2]}}]
"""


def write_data(folder, num_train=40, num_val=24):
    """PNG files of 16 x 16 pixels, one colour a class under noise, with list files."""
    folder = Path(folder)
    rng = np.random.RandomState(0)
    lines = []
    for index in range(num_train + num_val):
        label = index % len(CLASSES)
        image = np.clip(COLORS[label] + rng.normal(0, 25, [SIZE, SIZE, 3]), 0, 255).astype(np.uint8)
        path = Path("images", str(label), f"{index:03}.png")
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / path), image[:, :, ::-1])
        lines.append(f"{path} {label}\n")
    (folder / "train.txt").write_text("".join(lines[:num_train]))
    (folder / "val.txt").write_text("".join(lines[num_train:]))
    (folder / "labels.txt").write_text("".join(f"{number} {name}\n" for number, name in enumerate(CLASSES)))
    return folder


def write_yaml(root, data):
    """The file that trains on ``data`` and writes under ``root``."""
    path = Path(root) / "toy.yaml"
    path.write_text(YAML.format(root=root, data=data))
    return path


def records(output, event):
    """What ``train.jsonl`` says of one kind of event."""
    lines = (Path(output) / "train.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["event"] == event]


def digests(directory):
    """File name -> sha256 of its content, for every file below a directory."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path(directory).rglob("*"))
        if path.is_file()
    }
