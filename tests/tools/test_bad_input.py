# SPDX-License-Identifier: Apache-2.0
"""Bad input to the verbs: one clear line, the right exit code, nothing overwritten, no traceback."""

import numpy as np
import pytest
import toys

from ppcls.utils.lock import held

CONFIG, DATA, NUMERICS, STORAGE = 2, 3, 4, 5


@pytest.fixture
def refused(tool, run_folder):
    """Run a tool that has to refuse: its message, of one line, when the code is right and no result was touched."""

    def call(name, code, *overrides, config=None):
        def results():
            kept = toys.digests(run_folder)
            # The lock says who was the last to hold it.
            return {path: digest for path, digest in kept.items() if not path.endswith((".log", ".lock"))}

        before = results()
        given, out, err = tool(name, *overrides, config=config)
        assert given == code, err
        assert results() == before
        lines = [line for line in err.splitlines() if " ppcls " not in line]
        assert "Traceback" not in err + out
        assert len(lines) == 1, err
        return lines[0]

    return call


def test_a_wrong_path_of_the_configuration(refused, run_folder):
    message = refused("train", CONFIG, config=run_folder / "tov.yaml")
    assert message == f"{run_folder}/tov.yaml: there is no such file; did you mean '{run_folder}/toy.yaml'?"


def test_a_misspelt_key(refused):
    assert "did you mean 'epochs'?" in refused("train", CONFIG, "Global.epohcs=3")


@pytest.mark.parametrize("split", ["Train", "Eval"])
def test_a_wrong_image_root_names_the_image_and_its_line(refused, split):
    list_name, image = {"Train": ("train.txt", "000.png"), "Eval": ("val.txt", "040.png")}[split]
    message = refused("train", DATA, f"DataLoader.{split}.dataset.image_root=/nowhere")
    assert f": DataLoader.{split}.dataset: /nowhere/images/0/{image}: cannot be read" in message
    assert message.endswith(f"{list_name}:1")


def test_an_empty_list_file(refused, run_folder):
    (run_folder / "data" / "train.txt").write_text("\n")
    assert f"{run_folder}/data/train.txt: the list is empty" in refused("train", DATA)


def test_a_list_file_that_is_not_there(refused):
    assert "/nowhere.txt" in refused("train", DATA, "DataLoader.Train.dataset.cls_label_path=/nowhere.txt")


def test_a_label_outside_class_num_names_line_value_and_range_before_the_model_is_built(refused, run_folder):
    path = run_folder / "data" / "train.txt"
    path.write_text(path.read_text() + "images/0/000.png 4\n")
    message = refused("train", DATA)
    assert message.startswith(f"{path}:41: label 4 is outside 0..3 (Arch.class_num is 4); set Arch.class_num to 5")


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_is_named_with_its_line_also_by_a_worker(tool, run_folder, workers):
    (run_folder / "data" / "images" / "3" / "019.png").write_bytes(b"\x89PNG cut off")
    code, _, err = tool("train", f"DataLoader.Train.loader.num_workers={workers}")
    assert code == DATA
    assert len(err.splitlines()) == 1
    assert f"{run_folder}/data/images/3/019.png: damaged or cut off" in err
    assert err.strip().endswith(f"listed in {run_folder}/data/train.txt:20")


@pytest.mark.parametrize("name", ["train", "eval", "infer", "export_model"])
def test_weights_of_another_architecture_are_counted(refused, run_folder, name):
    message = refused(name, STORAGE, f"Global.pretrained_model={run_folder}/output/best_model", "Arch.width=5")
    assert "1 matched, 0 missing, 0 unexpected, 11 of another shape" in message


def test_a_checkpoint_of_another_architecture_is_refused_by_what_differs(refused, run_folder):
    message = refused("train", CONFIG, f"Global.checkpoints={run_folder}/output/epoch_1", "Arch.width=5")
    assert message.startswith(
        f"{run_folder}/output/epoch_1: Arch.width: 8 -> 5: the weights in the checkpoint are those"
    )
    assert message.endswith("start from its weights with Global.pretrained_model")


def cut_off(path):
    with open(path, "r+b") as file:
        file.truncate(100)


@pytest.mark.parametrize("name", ["train", "eval", "infer", "export_model"])
def test_cut_off_weights_are_refused(refused, run_folder, name):
    cut_off(run_folder / "output" / "best_model" / "model.safetensors")
    message = refused(name, STORAGE, f"Global.pretrained_model={run_folder}/output/best_model")
    assert f"{run_folder}/output/best_model/model.safetensors: cut off" in message


def test_a_cut_off_checkpoint_is_refused_with_the_good_one_beside_it(refused, run_folder):
    cut_off(run_folder / "output" / "epoch_2" / "model.safetensors")
    message = refused("train", STORAGE, f"Global.checkpoints={run_folder}/output/epoch_2")
    assert message.endswith(f"the newest good one is {run_folder}/output/epoch_1")


def test_auto_passes_over_a_cut_off_checkpoint_and_says_so(tool, run_folder):
    def tensors():
        digests = toys.digests(run_folder / "output" / "epoch_2")
        return {name: digest for name, digest in digests.items() if name.endswith(".safetensors")}

    expected = tensors()
    cut_off(run_folder / "output" / "epoch_2" / "model.safetensors")
    code, out, _ = tool("train", "Global.checkpoints=auto")
    assert code == 0
    assert f"{run_folder}/output/epoch_2/model.safetensors: cut off" in out
    # Images and checkpoints have moved here.
    assert "DataLoader.Train.dataset.image_root: " in out
    assert tensors() == expected


@pytest.mark.parametrize("name", ["train", "eval", "infer", "export_model"])
@pytest.mark.parametrize("device", ["gpu", "gpu:3", "toaster"])
def test_a_device_that_is_not_here_gets_the_list_of_those_that_are(refused, name, device):
    message = refused(name, CONFIG, f"Global.device={device}")
    assert message.startswith(f"Global.device: '{device}' is not on this machine; there is cpu")


@pytest.mark.parametrize("place", ["afile", "afile/below"])
@pytest.mark.parametrize("name", ["train", "eval"])
def test_an_output_directory_that_cannot_be_written(refused, run_folder, name, place):
    (run_folder / "afile").write_text("mine")
    message = refused(name, STORAGE, f"Global.output_dir={run_folder}/{place}")
    assert message.startswith(f"{run_folder}/{place}: cannot be written")


def test_an_export_into_the_place_of_a_file_or_of_other_files(refused, run_folder):
    weights = f"Global.pretrained_model={run_folder}/output/best_model"
    message = refused("export_model", STORAGE, weights, f"Global.save_inference_dir={run_folder}/toy.yaml")
    assert "is a file" in message
    message = refused("export_model", STORAGE, weights, f"Global.save_inference_dir={run_folder}/data")
    assert "which would be lost" in message


@pytest.mark.parametrize("section", ["Loss", "Optimizer"])
def test_training_without_a_section(refused, section):
    assert refused("train", CONFIG, f"{section}=null").startswith(f"{section}: the section is missing")


@pytest.mark.parametrize("name", ["infer", "export_model"])
def test_inferring_without_its_section(refused, name):
    assert refused(name, CONFIG, "Infer=null").startswith("Infer: the section is missing")


def test_a_loss_that_is_not_finite(tool):
    code, _, err = tool("train", "Optimizer.lr=1e30")
    assert code == NUMERICS
    assert len(err.splitlines()) == 1
    assert err.startswith("epoch 1, batch 2: ") and " at learning rate 1e+30; first not finite: " in err


def test_images_to_answer_that_are_not_there(refused, run_folder):
    (run_folder / "empty").mkdir()
    assert "no such file or folder" in refused("infer", DATA, "Infer.infer_imgs=/nowhere")
    assert "no images" in refused("infer", DATA, f"Infer.infer_imgs={run_folder}/empty")
    assert "/nowhere.txt" in refused("infer", DATA, "Infer.infer_list=/nowhere.txt")


@pytest.mark.parametrize("override", ["Arch.class_num=0", "Arch.class_num=-3"])
def test_no_classes_at_all(tool, override):
    code, _, err = tool("train", override)
    assert code in (CONFIG, DATA)
    assert "class_num" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("file", ["config.yaml", "environment.json", "train.log", "train.jsonl"])
def test_a_folder_in_the_place_of_a_file_that_training_writes(tool, run_folder, file):
    (run_folder / "new" / file).mkdir(parents=True)
    code, _, err = tool("train", f"Global.output_dir={run_folder}/new")
    assert code == STORAGE
    assert err.startswith(f"{run_folder}/new/{file}: cannot be ") and "(Is a directory)" in err
    assert len(err.splitlines()) == 1


def test_answers_that_cannot_be_stored(tool, run_folder):
    weights = f"Global.pretrained_model={run_folder}/output/best_model"
    code, out, err = tool("infer", weights, f"Infer.save_dir={run_folder}/nowhere/answers.json")
    assert code == STORAGE
    assert len(out.splitlines()) == 16
    assert err.splitlines()[-1].startswith(f"{run_folder}/nowhere/answers.json: cannot be")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("Loss.Train=[]", "Loss.Train: the list of losses is empty"),
        ("Metric.Eval=[]", "Metric.Eval: the list of metrics is empty"),
        ("Metric.Eval=[{TopkAcc: {topk: 1}}, {TopkAcc: {topk: 1}}]", "Metric.Eval: two metrics report top1"),
        ("Loss.Train.0.CELoss.reduction=none", "Loss.Train: CELoss: reduction none gives no single value"),
        ("Loss.Eval.0.CELoss.reduction=sum", "Loss.Eval: CELoss: reduction sum would depend on the batch size"),
        ("Optimizer.lr=-0.1", "Optimizer.lr: expected at least 0; got -0.1"),
        (
            "DataLoader.Eval.dataset.batch_transform_ops=[{MixupOperator: }]",
            "DataLoader: Eval.dataset.batch_transform_ops would mix the images of the evaluation; remove it",
        ),
    ],
)
def test_a_part_that_cannot_be_built_is_one_line(refused, override, message):
    assert message in refused("train", CONFIG, override)


def test_a_directory_that_another_run_writes_to(refused, run_folder):
    with held(run_folder / "output"):
        message = refused("train", STORAGE)
    assert message.startswith(f"{run_folder}/output: another run is writing there")


@pytest.mark.parametrize("verb", ["eval", "infer"])
def test_weights_that_are_not_finite_give_no_answers(tool, run_folder, verb):
    from safetensors.numpy import load_file, save_file

    weights = load_file(run_folder / "output" / "best_model" / "model.safetensors")
    save_file({name: array * np.nan for name, array in weights.items()}, run_folder / "nan.safetensors")
    code, out, err = tool(verb, f"Global.pretrained_model={run_folder}/nan.safetensors")
    assert code == 4
    assert "not finite" in err.splitlines()[-1]
    assert "class_ids" not in out
