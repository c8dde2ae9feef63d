# SPDX-License-Identifier: Apache-2.0
"""What the documents say is so: commands run, blocks parse, links lead somewhere, tables agree with the code.

Every command is in `RUN`, with what makes it short, or in `NOT_RUN`, with the reason and where it is run instead.
"""

import json
import os
import re
import runpy
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import ppcls.engine  # noqa: F401  (registers every part)
from ppcls.config import legacy, load_config
from ppcls.utils import errors
from ppcls.utils.logger import stop_logging

REPOSITORY = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    *(REPOSITORY / name for name in ("README.md", "README_ch.md", "CONTRIBUTING.md", "dataset/README.md")),
    *sorted((REPOSITORY / "docs").glob("*.md")),
]

QUICK = (
    "-o Global.epochs=1 -o Global.iter_per_epoch=2 -o DataLoader.Train.loader.num_workers=0 "
    "-o DataLoader.Eval.dataset.cls_label_path=dataset/few.txt"
)
TRAINED = "-c output/digits/config.yaml -o Global.pretrained_model=output/digits/best_model"
DENSENET = "configs/ImageNet/DenseNet/DenseNet121.yaml"
LAUNCH = "python3 -m paddle.distributed.launch"
SHORT = "-c configs/CIFAR10/TinyDarkNet_short.yaml"
# docs/coming_from_mindspore.md
CIFAR = "-c configs/CIFAR10/DenseNet100.yaml"
CIFAR_TRAINED = f"{CIFAR} -o Global.pretrained_model=output/CIFAR10_DenseNet100/best_model"
RECIPE = "-c configs/ImageNet/DenseNet/DenseNet121_mindspore.yaml"
RECIPE_TRAINED = f"{RECIPE} -o Global.pretrained_model=output/DenseNet121_mindspore/best_model"
SMALL_TYPE = "-o AMP.level=O2 -o AMP.scale_loss=1024"
PROCESSES = "python -m paddle.distributed.launch"
NODES = f"{PROCESSES} --nnodes 2 --master 10.0.0.1:36123 --nproc_per_node 8"
EIGHT = "0,1,2,3,4,5,6,7"

# In this order, after a short training on the digits. What is added stands behind the command.
RUN = {
    f"python tools/export_model.py {TRAINED}": "",
    f"python tools/infer.py {TRAINED}": "-o Infer.infer_imgs=dataset/digits/images/3/0003.png",
    f"python tools/eval.py {TRAINED}": "",
    f"python tools/export_model.py {TRAINED} --onnx": "",
    f"python tools/export_model.py {TRAINED} --int8": "--allow-int8-loss",
    "python tools/eval.py -c output/digits/config.yaml -o Global.bundle=inference/digits "
    "-o Global.runtime=onnxruntime": "",
    "python tools/infer.py --bundle inference/digits dataset/digits/images/3": "",
    "python tools/infer.py --bundle inference/digits --runtime onnxruntime --threads 1 "
    "dataset/digits/images/3/0003.png": "",
    "python tools/eval.py -c output/digits/config.yaml -o Global.bundle=inference/digits": "",
    "python tools/eval.py -c output/digits/config.yaml -o Global.bundle=inference/digits "
    "-o Global.runtime=paddle_onednn": "",
    "python tools/eval.py -c output/digits/config.yaml -o Global.bundle=inference/digits -o Global.runtime=int8": "",
    "python tools/plot_curves.py output/digits -o curves.png": "",
    "python tools/doctor.py": "",
    "python tools/check_config.py -c configs/quick_start/digits.yaml --print": "",
    "python tools/list.py": "",
    "python tools/list.py transforms": "",
    "python tools/list.py crop": "",
    "python tools/list.py sections": "",
    "python tools/list.py losses": "",
    f"python tools/check_config.py -c {DENSENET}": "",
    f"python tools/check_config.py -c {DENSENET} -o Global.epochs=3 --print": "",
    "python tools/check_config.py -c configs/quick_start/digits.yaml -o Global.epochs=3 "
    "-o Loss.Train.0.CELoss.epsilon=null -o 'Optimizer.lr={name: Constant, learning_rate: 0.01}'": "",
    "python tools/train.py -c configs/quick_start/my_images.yaml -o Arch.class_num=2": "-o Global.epochs=1 "
    "-o DataLoader.Train.sampler.batch_size=2 -o DataLoader.Train.loader.num_workers=0",
    "python tools/train.py -c configs/quick_start/digits.yaml -o Arch.class_num=2 "
    "-o DataLoader.Train.dataset.image_root=dataset/pets "
    "-o DataLoader.Train.dataset.cls_label_path=dataset/pets/train_list.txt "
    "-o DataLoader.Eval.dataset.image_root=dataset/pets "
    "-o DataLoader.Eval.dataset.cls_label_path=dataset/pets/val_list.txt "
    "-o Metric.Train.0.TopkAcc.topk=1 -o Metric.Eval.0.TopkAcc.topk=1 "
    "-o Global.output_dir=output/pets -o Global.save_inference_dir=inference/pets "
    "-o Infer.PostProcess.class_id_map_file=dataset/pets/label_list.txt "
    "-o Infer.infer_imgs=dataset/pets": "-o Global.epochs=1 -o DataLoader.Train.sampler.batch_size=2 "
    "-o DataLoader.Train.loader.num_workers=0",
    "python tools/train.py -c configs/quick_start/digits.yaml -o Global.epochs=12 -o Global.checkpoints=auto "
    "-o 'Optimizer.lr={name: Constant, learning_rate: 0.001}'": f"{QUICK} -o Global.epochs=2",
    "python tools/train.py -c configs/quick_start/digits.yaml -o Global.checkpoints=auto": QUICK,
    "python tools/launch.py --nproc_per_node 2 --devices cpu --max_restarts 3 tools/train.py "
    "-c configs/quick_start/digits.yaml -o Global.output_dir=output/digits_supervised "
    "-o Global.checkpoints=auto": QUICK,
    "python tools/make_lists.py --images dataset/my_images/train --output dataset/my_lists --val 0.2": "",
    "python tools/check_data.py -c configs/quick_start/digits.yaml": "--cache looks",
    "python tools/check_data.py --list dataset/digits/train_list.txt dataset/digits/val_list.txt --root dataset/digits "
    "--class_num 10": "--cache looks",
    "python tools/pack_dataset.py --image_root dataset/digits --cls_label_path dataset/digits/train_list.txt "
    "-o digits.pack": "",
    "python tools/pack_dataset.py --verify digits.pack": "",
    "python tools/train.py -c configs/quick_start/digits.yaml -o 'DataLoader.Train.dataset={"
    "name: PackedDataset, data_file: digits.pack, "
    "transform_ops: [DecodeImage: {}, NormalizeImage: {order: hwc}]}'": QUICK,
    "python tools/show_transforms.py -c configs/quick_start/digits.yaml": "",
    "PYTHONPATH=. python tools/check_config.py -c mine.yaml": "",
    "PYTHONPATH=. python tools/train.py -c mine.yaml": QUICK,
    f"{LAUNCH} --nproc_per_node 2 tools/train.py -c configs/quick_start/digits.yaml -o Global.device=cpu "
    "-o Global.output_dir=output/digits_two": QUICK,
}

# One that serves until it is ended, and those that ask it meanwhile.
SERVE = "python tools/serve.py --bundle inference/digits --port 8000"
ASK = [
    "curl --data-binary @dataset/digits/images/3/0003.png http://127.0.0.1:8000/predict",
    "curl -F a=@dataset/digits/images/3/0003.png -F b=@dataset/digits/images/5/0005.png http://127.0.0.1:8000/predict",
    "curl http://127.0.0.1:8000/metrics",
]

CI = ".ci/run runs it, as it is printed"
PACKAGING = "builds and installs from the network; done in a fresh environment for every change of setup.py"
GPU = "needs Paddle's GPU wheel and its index"
NOT_RUN = {
    "python3 -m venv .venv && . .venv/bin/activate && pip install -r requirements.txt && "
    "python tools/train.py -c configs/quick_start/digits.yaml": CI,
    "python3 -m venv .venv && . .venv/bin/activate && pip install -r requirements-dev.txt && "
    "ruff check . && ruff format --check . && mypy && python -m pytest": CI,
    f"python tools/train.py -c {DENSENET} -o Global.device=gpu": "needs ImageNet; tests/arch trains a DenseNet121",
    f"{LAUNCH} --gpus=0,1,2,3 tools/train.py -c {DENSENET} -o Global.device=gpu": "needs four GPUs",
    f"python tools/launch.py --devices 0,1,2,3 --max_restarts 3 tools/train.py -c {DENSENET} -o Global.device=gpu "
    "-o Global.checkpoints=auto": "needs four GPUs",
    **dict.fromkeys([SERVE, *ASK], "serves until it is ended; test_commands_that_serve_and_ask_run"),
    'PPCLS_WITHOUT_PADDLE=1 pip install ".[deploy]"': CI,
    "pip install .": PACKAGING,
    "cd ..": PACKAGING,
    "python -m ppcls.tools.check_config -c configs/quick_start/digits.yaml": PACKAGING,
    "pip install paddlepaddle-gpu==3.3.1 -i https://www.paddlepaddle.org.cn/packages/stable/cu126/": GPU,
    "grep -v '^paddlepaddle' requirements.txt > rest.txt && pip install -r rest.txt": GPU,
    'PPCLS_WITHOUT_PADDLE=1 pip install ".[gpu]" '
    "--extra-index-url https://www.paddlepaddle.org.cn/packages/stable/cu126/": GPU,
    "ruff format . && ruff check . && mypy && python -m pytest": "changes files; command 2 checks the same",
    "python -m pytest -m slow": "takes minutes",
    "pre-commit install": "changes the checkout's hooks",
    **dict.fromkeys(
        [
            "python tools/pack_dataset.py --image_root dataset/ILSVRC2012 --cls_label_path "
            "dataset/ILSVRC2012/train_list.txt --resize_short 288 --quality 90 -o train.pack",
            "python tools/pack_dataset.py --image_root dataset/ILSVRC2012 --cls_label_path "
            "dataset/ILSVRC2012/val_list.txt -o val.pack",
        ],
        "needs ImageNet; the same is run with the digits",
    ),
    **dict.fromkeys(
        [
            f"python tools/train.py {CIFAR} -o Global.device=cpu",
            f"{PROCESSES} --nproc_per_node 2 tools/train.py {CIFAR} -o Global.device=cpu",
            f"python tools/eval.py {CIFAR_TRAINED} -o Global.device=cpu",
            f"{PROCESSES} --nproc_per_node 2 tools/eval.py {CIFAR_TRAINED} -o Global.device=cpu",
            f"python tools/export_model.py {CIFAR_TRAINED} --onnx",
            f"python tools/eval.py {CIFAR} -o Global.bundle=inference/CIFAR10_DenseNet100 "
            "-o Global.runtime=onnxruntime",
        ],
        "needs CIFAR-10 and hours; the tests of the tools and of ONNX run the same verbs on small data",
    ),
    **dict.fromkeys(
        [
            f"CUDA_VISIBLE_DEVICES=0 python tools/train.py {RECIPE} -o Global.device=gpu {SMALL_TYPE}",
            f"{PROCESSES} --gpus={EIGHT} tools/train.py {RECIPE} -o Global.device=gpu {SMALL_TYPE}",
            f"{NODES} tools/train.py {RECIPE} -o Global.device=gpu -o Global.save_on_all_ranks=true",
            f"ASCEND_RT_VISIBLE_DEVICES=0 python tools/train.py {RECIPE} -o Global.device=npu {SMALL_TYPE}",
            f"{PROCESSES} --npus={EIGHT} tools/train.py {RECIPE} -o Global.device=npu {SMALL_TYPE}",
            "python3 -u -m paddle.distributed.launch --gpus=0,1,2,3 tools/train.py "
            f"-c ppcls/{DENSENET} -o Arch.pretrained=False -o Global.device=gpu",
            f"{PROCESSES} --devices=0,1,2,3 tools/train.py -c {DENSENET} -o Global.device=iluvatar_gpu",
            f"CUDA_VISIBLE_DEVICES=0 python tools/eval.py {RECIPE_TRAINED} -o Global.device=gpu",
            f"{PROCESSES} --gpus={EIGHT} tools/eval.py {RECIPE_TRAINED} -o Global.device=gpu",
            f"{NODES} tools/eval.py {RECIPE_TRAINED} -o Global.device=gpu",
            f"{PROCESSES} --npus={EIGHT} tools/eval.py {RECIPE_TRAINED} -o Global.device=npu",
            f"{PROCESSES} --devices=0,1,2,3 tools/eval.py -c {DENSENET} "
            "-o Global.pretrained_model=output/DenseNet121/best_model -o Global.device=iluvatar_gpu",
        ],
        "needs ImageNet and the devices that it names",
    ),
    **dict.fromkeys(
        [
            f"python tools/train.py {SHORT}",
            f"{PROCESSES} --nproc_per_node 2 tools/train.py {SHORT} -o DataLoader.Train.sampler.batch_size=64 "
            "-o DataLoader.Train.loader.num_workers=0",
            f"{PROCESSES} --nproc_per_node 2 tools/train.py -c configs/CIFAR10/DenseNet100_short.yaml "
            "-o DataLoader.Train.sampler.batch_size=32 -o DataLoader.Train.loader.num_workers=0",
            f"python tools/eval.py {SHORT} -o Global.pretrained_model=output/CIFAR10_TinyDarkNet_short/best_model",
            f"python tools/export_model.py {SHORT} "
            "-o Global.pretrained_model=output/CIFAR10_TinyDarkNet_short/best_model --onnx",
            f"python tools/eval.py {SHORT} -o Global.bundle=inference/CIFAR10_TinyDarkNet_short "
            "-o Global.runtime=onnxruntime",
        ],
        "needs CIFAR-10 and up to 40 minutes; docs/results.md has what came of it",
    ),
    **dict.fromkeys(
        [
            "python tools/launch.py --nnodes 8 --rank 0 --master 10.0.0.1:36123 --job_id densenet --devices "
            f"{EIGHT} --max_restarts 3 tools/train.py -c {DENSENET} -o Global.device=gpu -o Global.checkpoints=auto "
            "-o 'Optimizer.lr={name: Cosine, learning_rate: 1.6, warmup_epoch: 5}'",
            f"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=python {PROCESSES} --master etcd://10.0.0.1:2379 "
            "--job_id densenet --elastic_level 1 --max_restart 3 --nnodes 8 --nproc_per_node 8 tools/train.py "
            f"-c {DENSENET} -o Global.device=gpu -o Global.checkpoints=auto",
        ],
        "needs eight machines; tests/test_two_networks.py and tests/test_etcd.py do the same with two, and small",
    ),
    "python benchmarks/scaling.py": "takes minutes; docs/scaling.md has what came of it",
    "python dataset/make_cifar.py dataset/my_cifar dataset/my-cifar-10.tar.gz": "tests/data/test_cifar.py runs it",
    "cd dataset/ILSVRC2012": "needs ImageNet",
    'for split in train val; do n=0; for class in $split/*/; do find "$class" -type f | sort | sed "s/$/ $n/"; '
    "n=$((n+1)); done > ${split}_list.txt; done": "tests/test_coming_from_mindspore.py runs it on folders of its own",
}


def blocks(path, language):
    """The fenced blocks of one language in a document."""
    text = path.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(path):
    """The commands of a document, each on one line, without comments."""
    lines = "".join(blocks(path, "bash")).replace("\\\n", " ").splitlines()
    return [" ".join(line.split()) for line in lines if line.strip() and not line.startswith("#")]


def all_commands():
    return list(dict.fromkeys(command for path in DOCUMENTS for command in commands(path)))


def run_here(command, monkeypatch):
    """Run a Python tool in this process, without the seconds that a new one takes to import Paddle; its exit code."""
    arguments = shlex.split(command)
    assert arguments[0] == "python"
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", arguments[1:])
        patch.setattr(sys, "path", list(sys.path))
        try:
            runpy.run_path(arguments[1], run_name="__main__")
        except SystemExit as end:
            return end.code
        finally:
            stop_logging()
    return 0


def run_apart(command):
    """Run a command in a process of its own; its exit code."""
    python = shlex.quote(sys.executable)
    command = re.sub(r"\bpython3?(?= )", lambda match: python, command, count=1)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PADDLE_")}
    finished = subprocess.run(command, shell=True, env=environment, capture_output=True, text=True, timeout=300)
    print(finished.stdout, finished.stderr)
    return finished.returncode


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A folder that looks like the checkout, with a few images of one's own, in which commands may write."""
    root = tmp_path_factory.mktemp("checkout")
    for name in ("configs", "ppcls", "tools"):
        (root / name).symlink_to(REPOSITORY / name)
    (root / "dataset").mkdir()
    digits = root / "dataset" / "digits"
    digits.symlink_to(REPOSITORY / "dataset" / "digits")
    lines = (digits / "val_list.txt").read_text().splitlines()
    (root / "dataset" / "few.txt").write_text("\n".join(lines[::60]))
    pets = root / "dataset" / "pets"
    pets.mkdir()
    for label in (0, 1):
        for number, image in enumerate(sorted((digits / "images" / str(label)).iterdir())[:3]):
            shutil.copy(image, pets / f"a photo {label}{number}.png")
    for name in ("train_list.txt", "val_list.txt"):
        (pets / name).write_text(
            "".join(f"a photo {label}{number}.png {label}\n" for label in (0, 1) for number in range(3))
        )
    for split in ("train", "val"):
        for label in ("0", "1"):
            folder = root / "dataset" / "my_images" / split / label
            folder.mkdir(parents=True)
            for image in sorted((digits / "images" / label).iterdir())[:3]:
                shutil.copy(image, folder)
    custom = REPOSITORY / "docs" / "custom_parts.md"
    (root / "my_parts.py").write_text(blocks(custom, "python")[0])
    (root / "mine.yaml").write_text(blocks(custom, "yaml")[0])
    return root


@pytest.fixture(scope="module")
def trained(workspace):
    """The workspace after the training that the README begins with, made short."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workspace)
        assert run_here(f"python tools/train.py -c configs/quick_start/digits.yaml {QUICK}", patch) == 0
    return workspace


def test_every_command_is_run_or_has_a_reason():
    known = {**RUN, **NOT_RUN}
    assert [command for command in all_commands() if command not in known] == []
    assert [command for command in known if command not in all_commands()] == []


@pytest.mark.parametrize("command", RUN, ids=range(len(RUN)))
def test_command_runs(command, trained, monkeypatch):
    monkeypatch.chdir(trained)
    text = f"{command} {RUN[command]}"
    assert (run_here(text, monkeypatch) if command.startswith("python ") else run_apart(text)) == 0


def test_commands_that_serve_and_ask_run(trained, monkeypatch):
    pytest.importorskip("aiohttp")
    if not shutil.which("curl"):
        pytest.skip("there is no curl")
    monkeypatch.chdir(trained)
    assert run_here(f"python tools/export_model.py {TRAINED}", monkeypatch) == 0
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = shlex.split(SERVE.replace("8000", port))
    server = subprocess.Popen([sys.executable, *command[1:]], stdout=subprocess.PIPE, text=True)
    try:
        assert any(f" answers at http://127.0.0.1:{port} " in line for line in server.stdout)
        said = [
            subprocess.run(
                [*shlex.split(ask.replace("8000", port)), "--silent"], capture_output=True, text=True, timeout=300
            ).stdout
            for ask in ASK
        ]
        server.terminate()
        assert server.wait(300) == 0
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
    assert [len(json.loads(text)["results"]) for text in said[:2]] == [1, 2]
    assert 'ppcls_images_total{outcome="answered"} 3.0' in said[2]


@pytest.mark.parametrize("command", [command for command in NOT_RUN if " -c " in command])
def test_configuration_of_a_command_that_is_not_run_is_accepted(command):
    words = shlex.split(command)
    overrides = [words[index + 1] for index, word in enumerate(words) if word == "-o"]
    assert load_config(REPOSITORY / words[words.index("-c") + 1], overrides).warnings == ()


def test_first_command_ends_with_the_commands_that_follow_it(trained):
    log = (trained / "output" / "digits" / "train.log").read_text()
    printed = re.findall(r"python tools/.*", log)
    assert printed[:2] == commands(REPOSITORY / "README.md")[1:3]


def test_both_readmes_have_the_same_commands_and_code_in_the_same_order():
    english, chinese = REPOSITORY / "README.md", REPOSITORY / "README_ch.md"
    assert commands(english) == commands(chinese)
    assert blocks(english, "python") == blocks(chinese, "python")
    headings = [re.findall(r"^#+ ", path.read_text(encoding="utf-8"), re.MULTILINE) for path in (english, chinese)]
    assert headings[0] == headings[1]


def test_both_readmes_mark_the_two_commands_of_the_ci():
    for name in ("README.md", "README_ch.md"):
        text = (REPOSITORY / name).read_text(encoding="utf-8")
        marked = re.findall(r"^<!-- command (\d) -->\n```bash\n(.+)\n```$", text, re.MULTILINE)
        assert [number for number, _ in marked] == ["1", "2"]
        assert [NOT_RUN[command] for _, command in marked] == [CI, CI]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_python_and_yaml_blocks_are_valid(path):
    for block in blocks(path, "python"):
        compile(block, str(path), "exec")
    for block in blocks(path, "yaml"):
        assert yaml.safe_load(block)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_configurations_exist(path):
    text = path.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    assert [link for link in links if not (path.parent / link).exists()] == []
    files = re.findall(r"(?<![\w/.])configs/[\w/]+\.yaml", text)
    assert [file for file in files if "/X.yaml" not in file and not (REPOSITORY / file).is_file()] == []


def test_model_of_the_readme_works():
    (block,) = blocks(REPOSITORY / "README.md", "python")
    check = "import paddle\nassert TinyMLP(class_num=10)(paddle.zeros([2, 3, 32, 32])).shape == [2, 10]\n"
    finished = subprocess.run(
        [sys.executable, "-c", block + check], cwd=REPOSITORY, capture_output=True, text=True, timeout=300
    )
    assert finished.returncode == 0, finished.stderr


def test_example_of_a_base_file_merges_and_replaces(workspace):
    (example,) = [block for block in blocks(REPOSITORY / "docs" / "config.md", "yaml") if "_base_" in block]
    (workspace / "mine").mkdir()
    (workspace / "mine" / "example.yaml").write_text(example)
    config = load_config(workspace / "mine" / "example.yaml")
    assert config.Arch.model.kwargs == {"class_num": 10}
    assert config.Optimizer.lr.name == "Cosine" and config.Optimizer.lr.kwargs == {"learning_rate": 0.05}
    assert config.Optimizer.optimizer.name == "Momentum"


def test_message_of_the_document_is_the_message():
    (message,) = blocks(REPOSITORY / "docs" / "config.md", "text")
    with pytest.raises(errors.ConfigError) as caught:
        load_config(REPOSITORY / "configs" / "quick_start" / "digits.yaml", ["Global.epohcs=3"])
    assert str(caught.value) == message.strip()


def test_table_of_exit_codes_is_complete():
    text = (REPOSITORY / "docs" / "coming_from_paddleclas.md").read_text(encoding="utf-8")
    listed = {int(code) for row in re.findall(r"^\| ([\d, ]+) \|", text, re.MULTILINE) for code in row.split(", ")}
    classes = [item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, errors.PpclsError)]
    assert listed == {0, 130, 143, *(item.exit_code for item in classes)}


def test_ignored_keys_and_refused_sections_are_listed():
    text = (REPOSITORY / "docs" / "coming_from_paddleclas.md").read_text(encoding="utf-8")
    names = [key for _, key in legacy._REASONS] + list(legacy.UNSUPPORTED_SECTIONS)
    assert [name for name in names if f"`{name}`" not in text] == []
