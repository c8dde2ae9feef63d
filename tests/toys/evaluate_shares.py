# SPDX-License-Identifier: Apache-2.0
"""Evaluates data sets of 1 to 17 images with groups of 1 to 4 processes; each process tells what it came to.

The arguments: a configuration, a folder with the weights and a list of n images ``<n>.txt`` for each n, and that of
the answers, ``<size>_<rank>.json``: n to figures.
"""

import json
import os
import sys
from pathlib import Path

import paddle  # noqa: F401  (before the processes part)
from group import run_group

from ppcls.config import load_config
from ppcls.engine import Engine
from ppcls.utils import dist

CONFIG, LISTS, ANSWERS = sys.argv[1:]
SIZES, NUMBERS = range(1, 5), range(1, 18)


def evaluate_all():
    told = {}
    for number in NUMBERS:
        overrides = [
            f"Global.pretrained_model={LISTS}/weights",
            f"DataLoader.Eval.dataset.cls_label_path={LISTS}/{number}.txt",
            "DataLoader.Eval.sampler.batch_size=3",
        ]
        told[number] = Engine(load_config(CONFIG, overrides)).parts.evaluate()
    Path(ANSWERS, f"{dist.world_size()}_{dist.rank()}.json").write_text(json.dumps(told))


os.environ["OMP_NUM_THREADS"] = "1"
for size in SIZES:
    run_group(size, evaluate_all)
