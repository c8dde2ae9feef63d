# SPDX-License-Identifier: Apache-2.0
"""Training and evaluation on images of which some, or all, cannot be read."""

import json

import cv2
import pytest

DATA = 3
NUM_TRAIN, NUM_VAL = 40, 24


@pytest.fixture
def damage(run_folder):
    def cut_off(*numbers):
        for number in numbers:
            path = run_folder / "data" / "images" / str(number % 4) / f"{number:03}.png"
            path.write_bytes(path.read_bytes()[:-30])

    return cut_off


def skip(split, fraction=0.1):
    return f"DataLoader.{split}.on_bad_sample=skip", f"DataLoader.{split}.max_bad_fraction={fraction}"


def reported(run_folder):
    return [json.loads(line) for line in (run_folder / "output" / "bad_samples.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("workers", [0, 2])
def test_training_goes_on_without_bad_images_and_reports_them(tool, run_folder, damage, workers):
    damage(0, 17, 45)  # the first image is also the one that is tried before anything else
    number = f"DataLoader.Train.loader.num_workers={workers}"
    code, out, err = tool("train", number, *skip("Train"), *skip("Eval"))
    assert (code, err) == (0, "")
    assert out.count("[Train] left out: ") == 2
    assert out.count("[Eval] left out: ") == 1
    assert "[Eval][Epoch 2] 23 of 24 images, 1 could not be read (bad_samples.jsonl)" in out
    assert "after all-reduce: top1_correct=" in out
    assert "tot=23, acc=" in out
    lines = {(line["split"], line["index"], line["listed"].rpartition("/")[2]) for line in reported(run_folder)}
    assert lines == {("Train", 0, "train.txt:1"), ("Train", 17, "train.txt:18"), ("Eval", 5, "val.txt:6")}


def test_the_number_of_workers_changes_nothing_about_a_training_on_bad_images(tool, run_folder, damage):
    damage(3, 17)
    losses = []
    for workers in (0, 2):
        output = run_folder / f"with_{workers}"
        settings = f"DataLoader.Train.loader.num_workers={workers}", f"Global.output_dir={output}"
        assert tool("train", *settings, *skip("Train"))[0] == 0
        records = map(json.loads, (output / "train.jsonl").read_text().splitlines())
        losses.append([record["loss"] for record in records if "loss" in record])
    assert losses[0] == losses[1]


def test_evaluation_says_of_how_many_images_it_speaks(tool, run_folder, damage):
    damage(41, 62)
    weights = f"Global.pretrained_model={run_folder}/output/best_model"
    code, out, err = tool("eval", weights, *skip("Eval"))
    assert (code, err) == (0, "")
    assert "[Eval] 22 of 24 images, 2 could not be read (bad_samples.jsonl)" in out
    assert "num_samples: 22, num_left_out: 2" in out
    code, _, err = tool("eval", weights)
    assert code == DATA
    assert "val.txt:2" in err


def test_more_bad_images_than_allowed_end_the_run(tool, damage):
    damage(*range(1, 8))
    code, _, err = tool("train", *skip("Train"))
    assert code == DATA
    assert len(err.splitlines()) == 1
    assert err.startswith("5 of 40 images cannot be read, more than DataLoader.Train.max_bad_fraction (0.1) allows")


@pytest.mark.promise("F20")
@pytest.mark.parametrize("on_bad_sample", ["error", "skip"])
@pytest.mark.parametrize("split", ["Train", "Eval"])
@pytest.mark.parametrize("fraction", [0.5, 1.0])
def test_a_data_set_of_nothing_but_bad_images_ends_at_once(tool, damage, split, on_bad_sample, fraction):
    damage(*(range(NUM_TRAIN) if split == "Train" else range(NUM_TRAIN, NUM_TRAIN + NUM_VAL)))
    settings = f"DataLoader.{split}.on_bad_sample={on_bad_sample}", f"DataLoader.{split}.max_bad_fraction={fraction}"
    code, out, err = tool("train", *settings)
    assert code == DATA
    assert len(err.splitlines()) == 1
    assert "Iter:" not in out


def test_an_image_that_ends_its_workers_again_and_again_is_named_or_skipped(process, run_folder):
    total = int(cv2.imread(str(run_folder / "data" / "images" / "3" / "019.png")).sum())
    settings = (
        *("-c", run_folder / "toy.yaml", "-o", "DataLoader.Train.loader.num_workers=2"),
        *("-o", f"DataLoader.Train.dataset.transform_ops.1={{Deadly: {{total: {total}}}}}"),
        *("-o", "Global.imports=[toy_arch, toy_deadly]"),
    )
    done = process("train", *settings)
    assert done.returncode == DATA
    assert len(done.stderr.splitlines()) == 1
    assert f"{run_folder}/data/images/3/019.png: worker process " in done.stderr
    assert "was ended by SIGABRT while it made this image, as did another before it; listed in" in done.stderr
    done = process("train", *settings, *(word for setting in skip("Train") for word in ("-o", setting)))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("[Train] left out: ") == 1
    assert [line["index"] for line in reported(run_folder)] == [19]
