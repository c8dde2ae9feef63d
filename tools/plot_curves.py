# SPDX-License-Identifier: Apache-2.0
"""Draw the curves of one or more trainings as a PNG: python tools/plot_curves.py RUN [RUN ...] -o FILE.

A run is its output directory, or the train.jsonl in it. Loss and accuracy are drawn over the epochs: of the training
batches as a thin line, of the evaluation with markers.
"""

import argparse
import json
import os
import sys
from pathlib import Path

if not __package__:  # run from a checkout, not installed
    sys.path.insert(0, os.path.abspath(os.path.join(os.path.dirname(__file__), "..")))

from ppcls.utils.cli import run
from ppcls.utils.errors import ConfigError, DataError


def load_records(place: Path) -> list[dict]:
    """Return the records of a run that belong to whole epochs.

    Raises:
        DataError: there is no such file, it is damaged, or no epoch has ended yet.
    """
    path = place / "train.jsonl" if place.is_dir() else place
    try:
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give a run's output directory") from error
    except ValueError as error:
        raise DataError(f"{path}: not a file of JSON lines ({error})") from error
    whole = [record for record in records if record.get("event") in ("epoch", "eval")]
    if not whole:
        raise DataError(f"{path}: no epoch has ended yet")
    return whole


def main_metric(records: list[dict]) -> str | None:
    """Return the name of the first accuracy that was evaluated."""
    names = [name for record in records if record["event"] == "eval" for name in record if name.startswith("top")]
    return names[0] if names else None


def draw(runs: list[Path], file: Path) -> None:
    """Write the PNG."""
    try:
        import matplotlib
    except ImportError:
        raise ConfigError("matplotlib is not installed; pip install matplotlib") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (loss_axes, accuracy_axes) = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for place, colour in zip(runs, pyplot.rcParams["axes.prop_cycle"].by_key()["color"] * len(runs)):
        records = load_records(place)
        label = place.name if place.is_dir() else place.parent.name
        names = [(loss_axes, "loss", 1)]
        if metric := main_metric(records):
            names.append((accuracy_axes, metric, 100))
        for axes, name, factor in names:
            for event, style in (("epoch", {"linewidth": 1}), ("eval", {"marker": "o", "markersize": 4})):
                points = [
                    (r["epoch"], factor * r[name]) for r in records if r["event"] == event and r.get(name) is not None
                ]
                what = {"epoch": "training", "eval": "evaluation"}[event]
                if points:
                    axes.plot(*zip(*points), color=colour, label=f"{label}, {what}", **style)
    loss_axes.set_ylabel("loss")
    accuracy_axes.set_ylabel("top-1 accuracy (%)")
    for axes in (loss_axes, accuracy_axes):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=8)
    figure.savefig(file, dpi=110)


def main() -> None:
    """Read the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="an output directory or its train.jsonl")
    parser.add_argument("-o", "--output", type=Path, default=Path("curves.png"), help="the PNG (default: curves.png)")
    arguments = parser.parse_args()
    draw(arguments.runs, arguments.output)
    print(arguments.output)


if __name__ == "__main__":
    run(main)
