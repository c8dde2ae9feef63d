# SPDX-License-Identifier: Apache-2.0
"""Draw the curves of one or more trainings as a PNG: python tools/plot_curves.py RUN [RUN ...] -o FILE.

A run is its output directory, or the train.jsonl in it. Loss and main metric are drawn over the epochs: of the training
batches as a thin line, of the evaluation with markers.
"""

import argparse
import json
import os
import re
import sys
from pathlib import Path

if not __package__:  # run from a checkout, not installed
    sys.path.insert(0, os.path.abspath(os.path.join(os.path.dirname(__file__), "..")))

from ppcls.utils.cli import run
from ppcls.utils.errors import ConfigError, DataError

NO_METRICS = ("time", "event", "epoch", "step", "num_samples", "best")


def load_records(place: Path) -> list[dict]:
    """Return the records of a run that belong to whole epochs; lines that a killed run has cut off are left out.

    Raises:
        DataError: there is no such file, nothing in it can be read, or no epoch has ended yet.
    """
    path = place / "train.jsonl" if place.is_dir() else place
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give a run's output directory") from error
    records = [record_of(line) for line in lines]
    if lines and not any(records):
        raise DataError(f"{path}: not a file of JSON lines; give a run's output directory")
    for number, record in enumerate(records, 1):
        if record is None:
            print(f"{path}:{number}: cut off or damaged; the line is left out", file=sys.stderr)
    whole = [record for record in records if record and record.get("event") in ("epoch", "eval")]
    if not whole:
        raise DataError(f"{path}: no epoch has ended yet")
    return whole


def record_of(line: str) -> dict | None:
    """Return the record that a line holds; None when it holds none."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def main_metric(records: list[dict]) -> str | None:
    """Return the name of the first figure of the evaluations that is neither a loss nor a count."""
    names = list(dict.fromkeys(name for record in records if record["event"] == "eval" for name in record))
    figures = names[names.index("loss") + 1 :] if "loss" in names else names
    return next((name for name in figures if name not in NO_METRICS and not name.endswith("_correct")), None)


def scale_of(metric: str) -> tuple[str, int]:
    """Return what a metric's axis is called, and by what its values are multiplied there."""
    top = re.fullmatch(r"top(\d+)", metric)
    return (f"top-{top[1]} accuracy (%)", 100) if top else (metric, 1)


def draw(runs: list[Path], file: Path) -> None:
    """Write the PNG.

    Raises:
        ConfigError: Matplotlib is not installed, or does not write files with this ending.
        DataError: as in `load_records`.
    """
    try:
        import matplotlib
    except ImportError:
        raise ConfigError("matplotlib is not installed; pip install matplotlib") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (loss_axes, metric_axes) = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    endings = sorted(figure.canvas.get_supported_filetypes())
    if file.suffix.lower().lstrip(".") not in endings:
        raise ConfigError(f"-o {file}: the name has to end in one of .{', .'.join(endings)}; take .png")
    scales: list[str] = []
    for place, colour in zip(runs, pyplot.rcParams["axes.prop_cycle"].by_key()["color"] * len(runs)):
        records = load_records(place)
        label = (place if place.is_dir() else place.parent).resolve().name
        names = [(loss_axes, "loss", 1)]
        if metric := main_metric(records):
            scale, factor = scale_of(metric)
            scales.append(scale)
            names.append((metric_axes, metric, factor))
        for axes, name, factor in names:
            for event, style in (("epoch", {"linewidth": 1}), ("eval", {"marker": "o", "markersize": 4})):
                # Of an epoch that was trained again, after a run was cut, the last figures count.
                points = {
                    r["epoch"]: factor * r[name] for r in records if r["event"] == event and r.get(name) is not None
                }
                what = {"epoch": "training", "eval": "evaluation"}[event]
                if points:
                    axes.plot(*zip(*points.items()), color=colour, label=f"{label}, {what}", **style)
    loss_axes.set_ylabel("loss")
    metric_axes.set_ylabel(", ".join(dict.fromkeys(scales)))
    for axes in (loss_axes, metric_axes):
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
