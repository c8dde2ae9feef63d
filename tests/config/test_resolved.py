# SPDX-License-Identifier: Apache-2.0
"""The resolved text says everything, can be read back, and knows where each value comes from."""

from pathlib import Path

import pytest
import yaml

from ppcls import arch, loss, metric, optimizer  # noqa: F401
from ppcls.config import load_config
from ppcls.config.load import REPOSITORY
from ppcls.config.resolved import resolved_text, short_text
from ppcls.data import all as data  # noqa: F401

PADDLECLAS = Path(__file__).parent / "densenet121_paddleclas.yaml"
SHIPPED = [path for path in sorted((REPOSITORY / "configs").glob("**/*.yaml")) if "_base_" not in path.parts]
TINY = "Global: {}\nArch: {name: DenseNet121}\n"


def origins(text):
    """Dotted path to the origin comment of each line that has one."""
    found, stack = {}, []
    for line in text.splitlines():
        content, _, origin = line.partition("  # ")
        key = content.strip().lstrip("- ").partition(":")[0]
        depth = len(content) - len(content.lstrip())
        stack = [(d, k) for d, k in stack if d < depth] + [(depth, key)]
        if origin:
            found[".".join(k for _, k in stack)] = origin.strip()
    return found


@pytest.mark.parametrize("path", [PADDLECLAS, *SHIPPED], ids=lambda path: path.stem)
@pytest.mark.parametrize("with_origins", [False, True])
def test_the_resolved_text_of_a_file_is_the_same_configuration(write, path, with_origins):
    config = load_config(path)
    again = load_config(write(resolved_text(config.call, origins=with_origins)))
    for section in ("Global", "AMP", "EMA"):
        assert getattr(again, section) == getattr(config, section)
    assert yaml.safe_load(resolved_text(again.call)) == yaml.safe_load(resolved_text(config.call))


@pytest.mark.parametrize(
    ("override", "path", "expected"),
    [
        ("Global.output_dir='a: b # c'", "Global.output_dir", "a: b # c"),
        ('Global.output_dir="one\\ntwo\\n"', "Global.output_dir", "one\ntwo\n"),
        ("Global.output_dir='true'", "Global.output_dir", "true"),
        ("Global.output_dir='1e-8'", "Global.output_dir", "1e-8"),
        ("Global.output_dir='2001-01-01'", "Global.output_dir", "2001-01-01"),
        ("Global.output_dir=''", "Global.output_dir", ""),
        ("Global.output_dir=数据", "Global.output_dir", "数据"),
        ("Global.log_ranks='0,1'", "Global.log_ranks", "0,1"),
        ("Global.imports=[os, sys]", "Global.imports", ["os", "sys"]),
        ("EMA.decay=1e-8", "EMA.decay", 1e-8),
        ("Optimizer={name: SGD, lr: 1/3}", "Optimizer.lr", 1 / 3),
    ],
)
def test_a_value_survives_the_way_to_text_and_back(write, override, path, expected):
    text = resolved_text(load_config(write(TINY), [override]).call, origins=True)
    section, key = path.split(".")
    assert yaml.safe_load(text)[section][key] == expected
    assert getattr(getattr(load_config(write(text)), section), key) == expected


def test_every_default_is_written_out(write):
    resolved = yaml.safe_load(resolved_text(load_config(write(TINY)).call))
    assert resolved["Global"]["epochs"] == 1
    assert resolved["Arch"]["infer_add_softmax"] is True
    assert (resolved["Loss"], resolved["AMP"]) == (None, None)


def test_what_the_framework_supplies_is_not_written(write):
    call = load_config(write(TINY), ["Optimizer={name: SGD, lr: {name: Cosine, learning_rate: 1}}"]).call
    resolved = yaml.safe_load(resolved_text(call))
    assert "parameters" not in resolved["Optimizer"]
    assert "epochs" not in resolved["Optimizer"]["lr"]


def test_each_value_is_followed_by_where_it_comes_from(write):
    write("Global:\n  seed: 3\n  epochs: 4\n", "base.yaml")
    name = write("_base_: base.yaml\nArch:\n  name: DenseNet121\nGlobal:\n  epochs: 5\n")
    found = origins(resolved_text(load_config(name, ["Global.device=cpu"]).call, origins=True))
    assert found["Global.seed"] == "base.yaml:2"
    assert found["Global.epochs"] == "x.yaml:5"
    assert found["Global.device"] == "-o Global.device=cpu"
    assert found["Global.save_interval"] == "default"
    assert found["Arch.name"] == "x.yaml:3"
    assert found["Arch.class_num"] == "default"
    assert found["Loss"] == "default"


def test_without_origins_there_are_no_comments(write):
    assert "#" not in resolved_text(load_config(write(TINY)).call)


@pytest.mark.parametrize(
    "text",
    ["RandFlipImage", "NormalizeImage: {scale: 0.5, mean: [0.5, 0.4, 0.3], order: ''}", "RandCropImage: {size: 224}"],
)
def test_a_part_in_one_line_is_what_the_file_says(write, text):
    loader = "{sampler: {name: DistributedBatchSampler, batch_size: 8}, dataset: {name: ImageNetDataset, "
    loader += "image_root: x, cls_label_path: y, transform_ops: [%s]}}"
    train = load_config(write(TINY), ["DataLoader.Train=" + loader % text]).DataLoader.Train
    (call,) = train.dataset.source.kwargs["transform_ops"]
    assert short_text(call) == text


def test_a_part_with_parts_in_it_is_told_as_the_file_has_it(write):
    text = "OpSampler: {MixupOperator: {alpha: 0.8, prob: 0.5}, CutmixOperator: {prob: 0.25}}"
    loader = "{sampler: {name: DistributedBatchSampler, batch_size: 8}, dataset: {name: ImageNetDataset, "
    loader += "image_root: x, cls_label_path: y, batch_transform_ops: [%s]}}"
    train = load_config(write(TINY), ["DataLoader.Train=" + loader % text]).DataLoader.Train
    assert short_text(train.dataset.batch_transform_ops[0]) == text


def test_passwords_and_signatures_in_urls_are_not_shown(write):
    url = "https://me:hidden@host:80/a.pdparams?signature=hidden#sha256=00"
    name = write(f"Global: {{}}\nArch: {{name: DenseNet121, pretrained: '{url}'}}\n")
    text = resolved_text(load_config(name, [f"Global.output_url={url}"]).call, origins=True)
    assert "hidden" not in text
    assert yaml.safe_load(text)["Arch"]["pretrained"] == "https://***@host:80/a.pdparams?***#sha256=00"
