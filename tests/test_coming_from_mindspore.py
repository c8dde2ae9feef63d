# SPDX-License-Identifier: Apache-2.0
"""docs/coming_from_mindspore.md names every flag and script of the documents, and only keys and files that exist."""

import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import paddle
import pytest
import yaml

import ppcls.engine  # noqa: F401  (registers every part)
from ppcls.config import load_config
from ppcls.config.resolved import resolved_text
from ppcls.data.list_file import ImageNetDataset
from ppcls.loss import CELoss

REPOSITORY = Path(__file__).resolve().parents[1]
TEXT = (REPOSITORY / "docs" / "coming_from_mindspore.md").read_text(encoding="utf-8")
DENSENET = "configs/ImageNet/DenseNet/DenseNet121_mindspore.yaml"
TINY = "configs/ImageNet/TinyDarkNet/TinyDarkNet.yaml"
RECIPES = (DENSENET, TINY, "configs/CIFAR10/DenseNet100.yaml", "configs/CIFAR10/TinyDarkNet.yaml")
SECTIONS = ("Global", "Arch", "Loss", "Optimizer", "DataLoader", "Metric", "Infer", "AMP", "EMA")

# Copied from the sections on parameters of the four documents.
DENSENET_FLAGS = """
train_data_dir num_classes image_size per_batch_size train_pretrained lr_scheduler lr lr_epochs lr_gamma eta_min T_max
max_epoch warmup_epochs weight_decay momentum label_smooth label_smooth_factor log_interval save_ckpt_path ckpt_interval
is_save_on_master is_distributed rank group_size Data_dir pretrained ckpt_path
"""
# From their commands.
DENSENET_OPTIONS = """
net dataset eval_data_dir data_dir ckpt_files ckpt_file device_target file_format file_name batch_size config_path
dataset_name
"""
TINY_PARAMETERS = """
pre_trained num_classes lr_init batch_size epoch_size momentum weight_decay image_height image_width
train_data_dir val_data_dir device_target keep_checkpoint_max checkpoint_path onnx_filename air_filename
lr_scheduler lr_epochs lr_gamma eta_min T_max warmup_epochs is_dynamic_loss_scale loss_scale label_smooth_factor
use_label_smooth
"""
NAMES = """
train.py eval.py eval_onnx.py export.py mindspore_hub_conf.py postprocess.py run_standalone_train.sh
run_standalone_train_gpu.sh run_distribute_train.sh run_distribute_train_gpu.sh run_train_cpu.sh run_train_gpu.sh
run_eval.sh run_eval_cpu.sh run_eval_gpu.sh run_distribute_eval.sh run_distribute_eval_gpu.sh run_infer_310.sh build.sh
MINDIR_PATH DATASET DATA_PATH LABEL_FILE LABEL_PATH DVPP DEVICE_ID DEVICE_NUM RANK_TABLE_FILE RANK_SIZE TRAIN_DATA_DIR
VAL_DATA_DIR CHECKPOINT_PATH hccl_8p.json rank_table.json hccl_tools mpirun _config_path enable_modelarts
modelarts_dataset_unzip_name densenet100_config.yaml densenet121_config.yaml densenet100.yaml densenet121.yaml
imagenet_config.yaml imagenet_config_gpu.yaml cifar10_config.yaml cifar10_config_gpu.yaml default_config.yaml
CUDA_VISIBLE_DEVICES FLAGS_cudnn_exhaustive_search FLAGS_cudnn_batchnorm_spatial_persistent cifar-10-verify-bin
validation_preprocess imgid2label.py image_id.txt nohup.out acc.log platform AIR MINDIR ONNX
"""


def tables():
    """The rows of every table under the heading it stands below."""
    found = {}
    heading = None
    for line in TEXT.splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif line.startswith("| ") and not line.startswith("| theirs"):
            cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            found.setdefault(heading, []).append(cells)
    return found


ROWS = [row for rows in tables().values() for row in rows]


def code(cell):
    return re.findall(r"`([^`]+)`", cell)


def commands():
    text = "".join(re.findall(r"^```bash\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL))
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def written(recipe, *overrides):
    """Everything that a recipe means, with every default, as plain data."""
    return yaml.safe_load(resolved_text(load_config(REPOSITORY / recipe, overrides).call))


@pytest.fixture(scope="module")
def experiments():
    """The recipes of the document, with a section for mixed precision."""
    return {recipe: written(recipe, "AMP.level=O2") for recipe in RECIPES}


def value_of(experiment, path):
    """What stands at a dotted path; KeyError where nothing does."""
    for key in path.split("."):
        try:
            experiment = experiment[int(key) if key.isdecimal() else key]
        except (IndexError, TypeError):
            raise KeyError(path) from None
    return experiment


def has(experiment, path):
    """Whether anything, null included, stands at a dotted path."""
    try:
        value_of(experiment, path)
    except KeyError:
        return False
    return True


def settings(cell):
    """The keys, with values if they are given, that a cell names."""
    return [item for item in code(cell) if item.partition(".")[0] in SECTIONS]


@pytest.mark.parametrize("item", sorted({item for row in ROWS for cell in row[1:] for item in settings(cell)}))
def test_every_key_that_the_tables_name_exists(item, experiments):
    path, has_value, _ = item.partition("=")
    if has_value:
        overrides = [item]
        if item == "Global.runtime=onnxruntime":
            overrides.append("Global.bundle=exported")
        if path.startswith("AMP.") and not path.endswith("level"):
            overrides.append("AMP.level=O2")
        assert value_of(written(DENSENET, *overrides), path) is not None
        return
    assert any(has(experiment, path) for experiment in experiments.values()), f"{path} is in none of the recipes"


@pytest.mark.parametrize(
    ("heading", "recipe"), [("Parameters of DenseNet", DENSENET), ("Parameters of Tiny-DarkNet", TINY)]
)
def test_defaults_in_the_tables_are_those_of_the_recipe(heading, recipe, experiments):
    checked = 0
    for theirs, ours, default, _ in tables()[heading]:
        given = re.search(r"/ `([^`]+)`$", default)
        keys = settings(ours)
        if given and not given[1].startswith("Global.") and "=" not in keys[0]:
            assert yaml.safe_load(given[1]) == value_of(experiments[recipe], keys[0]), theirs
            checked += 1
    assert checked > 15


@pytest.mark.parametrize("flag", [*DENSENET_FLAGS.split(), *DENSENET_OPTIONS.split()])
def test_every_flag_has_a_row(flag):
    assert any(re.search(rf"--{flag}\b", item) for row in ROWS for item in code(row[0]))


@pytest.mark.parametrize("parameter", TINY_PARAMETERS.split())
def test_every_parameter_of_tiny_darknet_has_a_row(parameter):
    assert any(parameter in code(row[0]) for row in tables()["Parameters of Tiny-DarkNet"])


@pytest.mark.parametrize("name", NAMES.split())
def test_every_script_file_and_setting_of_the_documents_is_named(name):
    pattern = re.compile(rf"(?<![\w.-]){re.escape(name)}(?![\w-])")
    in_prose = [item for line in TEXT.splitlines() if not line.startswith("|") for item in code(line)]
    assert any(pattern.search(item) for item in [*in_prose, *(item for row in ROWS for item in code(row[0]))])


def test_every_tool_and_recipe_that_is_named_is_there():
    paths = set(re.findall(r"(?<![\w./])(?:tools|configs)/[\w/]+\.(?:py|yaml)", TEXT)) | {"hubconf.py"}
    assert len(paths) > 8
    assert [path for path in paths if not (REPOSITORY / path).is_file()] == []


@pytest.mark.parametrize("command", [command for command in commands() if "tools/" in command])
def test_every_command_is_accepted(command):
    words = shlex.split(command)
    config = words[words.index("-c") + 1]
    overrides = [words[index + 1] for index, word in enumerate(words) if word == "-o"]
    assert load_config(config, overrides).warnings == ()
    assert (REPOSITORY / next(word for word in words if word.startswith("tools/"))).is_file()


def test_every_way_to_run_has_a_line_for_training_and_evaluation():
    for tool in ("train", "eval"):
        lines = [command for command in commands() if f"tools/{tool}.py" in command]
        for words in (["device=cpu"], ["--nproc_per_node 2", "device=cpu"], ["CUDA_VISIBLE_DEVICES=0", "device=gpu"]):
            assert any(all(word in line for word in words) for line in lines), (tool, words)
        for words in (["--gpus=", "device=gpu"], ["--nnodes", "--master"], ["device=npu"], ["device=iluvatar_gpu"]):
            assert any(all(word in line for word in words) for line in lines), (tool, words)


def test_lines_that_need_a_device_are_marked():
    lines = TEXT.splitlines()
    devices = [index for index, line in enumerate(lines) if " tools/" in line and re.search("device=[^c]", line)]
    assert devices
    assert [lines[index] for index in devices if not re.search(r"\((not run|run as two)", lines[index - 1])] == []


def test_nothing_is_left_without_an_answer():
    assert "not supported" not in TEXT.lower()
    assert all(len(cells) == len(rows[0]) for rows in tables().values() for cells in rows)


def test_lists_of_class_folders_are_written_as_the_document_says(tmp_path):
    """Classes are numbered by their sorted names, in both lists, and the lists can be read."""
    for split, classes in (("train", ("n01", "n02", "n10")), ("val", ("n01", "n02", "n10"))):
        for name in classes:
            (tmp_path / split / name).mkdir(parents=True)
            (tmp_path / split / name / "a photo.png").touch()
    (command,) = [line for line in commands() if line.startswith("for ")]
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True)
    for split in ("train", "val"):
        listed = (tmp_path / f"{split}_list.txt").read_text().splitlines()
        assert listed == [f"{split}/{name}/a photo.png {number}" for number, name in enumerate(("n01", "n02", "n10"))]
        assert len(ImageNetDataset(str(tmp_path), str(tmp_path / f"{split}_list.txt"))) == 3


@pytest.mark.parametrize(("factor", "classes"), [(0.1, 1000), (0.1, 10), (0.3, 2)])
def test_smoothing_of_the_documents_is_ours_with_another_number(factor, classes):
    """Theirs: 1 - f on the label and f / (C - 1) on each other class."""
    logits = np.random.RandomState(0).standard_normal((5, classes)).astype("float32")
    labels = np.arange(5) % classes
    theirs = np.full((5, classes), factor / (classes - 1))
    theirs[np.arange(5), labels] = 1 - factor
    log_softmax = logits - np.log(np.exp(logits.astype("float64")).sum(1, keepdims=True))
    ours = CELoss(epsilon=factor * classes / (classes - 1))(paddle.to_tensor(logits), paddle.to_tensor(labels))
    assert float(ours["CELoss"]) == pytest.approx(-(theirs * log_softmax).sum(1).mean(), rel=1e-5)
