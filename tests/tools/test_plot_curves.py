# SPDX-License-Identifier: Apache-2.0
"""`tools/plot_curves.py` on records as a training writes them."""

import json
import runpy
import sys
from pathlib import Path

import pytest

TOOL = str(Path(__file__).resolve().parents[2] / "tools" / "plot_curves.py")


def write_run(folder, metric="top1", epochs=3):
    """The records of a short training; the metric is 0.5 in every epoch."""
    folder.mkdir()
    lines = []
    for epoch in range(1, epochs + 1):
        place = {"time": 1.5, "epoch": epoch, "step": 2 * epoch}
        lines.append({**place, "event": "train", "batch": 1, "loss": 1.0})
        lines.append({**place, "event": "epoch", "CELoss": 1.0, "loss": 1.0, metric: 0.5, "ips": 9.0})
        figures = {"CELoss": 1.0, "loss": 1.0, metric: 0.5, "other": 0.1, f"{metric}_correct": 2}
        lines.append({**place, "event": "eval", **figures, "num_samples": 4, "best": 0.5})
    (folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def plot(tmp_path, monkeypatch, capsys):
    """Run the tool in a directory of its own; give exit code, stdout and stderr."""
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", [TOOL, *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(TOOL, run_name="__main__")
        return end.value.code, *capsys.readouterr()

    return run


def texts(path):
    """An SVG file has every text of the figure in a comment."""
    return [line.strip()[5:-4] for line in path.read_text().splitlines() if line.strip().startswith("<!-- ")]


def test_a_run_becomes_a_png(plot, tmp_path):
    write_run(tmp_path / "run")
    assert plot("run", "-o", "x.png") == (0, "x.png\n", "")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_what_a_killed_run_has_cut_off_is_left_out(plot, tmp_path):
    file = write_run(tmp_path / "run") / "train.jsonl"
    file.write_bytes(file.read_bytes()[:-30])
    code, out, err = plot("run", "-o", "x.svg")
    assert (code, out) == (0, "x.svg\n")
    assert err == "run/train.jsonl:9: cut off or damaged; the line is left out\n"


def test_a_run_that_went_on_after_a_cut_is_drawn(plot, tmp_path):
    file = write_run(tmp_path / "run") / "train.jsonl"
    records = file.read_text()
    file.write_text(records[:-30] + records)
    code, _, err = plot("run")
    assert (code, err) == (0, "run/train.jsonl:9: cut off or damaged; the line is left out\n")


@pytest.mark.parametrize("content", ["no json\n", "[1, 2]\n", "\xff\xfe\n"])
def test_another_file_is_refused(plot, tmp_path, content):
    (tmp_path / "x.jsonl").write_text(content, encoding="latin-1")
    assert plot("x.jsonl") == (3, "", "x.jsonl: not a file of JSON lines; give a run's output directory\n")


def test_a_run_whose_first_epoch_has_not_ended_is_refused(plot, tmp_path):
    file = write_run(tmp_path / "run") / "train.jsonl"
    file.write_text(file.read_text().splitlines()[0] + "\n")
    assert plot("run") == (3, "", "run/train.jsonl: no epoch has ended yet\n")


@pytest.mark.parametrize("name", ["x.bmq", "x", "x.png.txt"])
def test_an_ending_that_cannot_be_written_is_one_line(plot, tmp_path, name):
    write_run(tmp_path / "run")
    code, out, err = plot("run", "-o", name)
    assert (code, out) == (2, "")
    assert err.startswith(f"-o {name}: the name has to end in one of .") and err.endswith("; take .png\n")
    assert err.count("\n") == 1
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize(
    ("metric", "label"), [("top1", "top-1 accuracy (%)"), ("top5", "top-5 accuracy (%)"), ("f1", "f1")]
)
def test_the_axis_is_called_as_its_metric(plot, tmp_path, metric, label):
    write_run(tmp_path / "run", metric)
    assert plot("run", "-o", "x.svg")[0] == 0
    assert label in texts(tmp_path / "x.svg")


def test_runs_without_evaluations_and_of_two_metrics_are_drawn(plot, tmp_path):
    for name, metric in (("a", "top1"), ("b", "f1"), ("c", "top1")):
        write_run(tmp_path / name, metric)
    file = tmp_path / "c" / "train.jsonl"
    file.write_text("".join(line for line in file.read_text().splitlines(True) if '"eval"' not in line))
    assert plot("a", "b", "c", "-o", "x.svg")[0] == 0
    assert "top-1 accuracy (%), f1" in texts(tmp_path / "x.svg")


@pytest.mark.parametrize("place", [".", "train.jsonl", "../run"])
def test_a_run_is_called_by_its_folder_however_it_is_given(plot, tmp_path, monkeypatch, place):
    write_run(tmp_path / "run")
    monkeypatch.chdir(tmp_path / "run")
    assert plot(place, "-o", "x.svg")[0] == 0
    assert {"run, training", "run, evaluation"} <= set(texts(tmp_path / "run" / "x.svg"))
