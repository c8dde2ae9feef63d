# SPDX-License-Identifier: Apache-2.0
"""Object storage as a person at the command line meets it: one clear line and the right exit code."""

import io
import zipfile

import pytest
from object_storage import SECRET

DATA, STORAGE = 3, 5
IMAGES = "DataLoader.Train.dataset.image_root"


@pytest.fixture
def refused(s3, tool):
    """The one line of a tool that has to refuse."""

    def call(name, code, *overrides):
        given, out, err = tool(name, *overrides)
        assert given == code, err
        lines = [line for line in err.splitlines() if " ppcls " not in line]
        assert len(lines) == 1 and "Traceback" not in out + err, err
        assert SECRET not in out + err
        return lines[0]

    return call


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("train", IMAGES),
        ("train", "DataLoader.Train.dataset.cls_label_path"),
        ("train", "Global.checkpoints"),
        ("train", "Global.output_url"),
        ("eval", "Global.pretrained_model"),
        ("infer", "Infer.infer_imgs"),
    ],
)
def test_a_missing_bucket(refused, name, key):
    weights = [] if key.startswith("Global.pre") else ["Global.pretrained_model=output/best_model"]
    message = refused(name, STORAGE, f"{key}=s3://no-such-bucket/data", *weights[: name != "train"])
    assert "s3://no-such-bucket/data: there is no such thing" in message


def test_an_endpoint_that_does_not_answer(refused, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    message = refused("train", STORAGE, f"{IMAGES}=s3://bucket/data.zip")
    assert "s3://bucket/data.zip: no connection" in message and "check the network and AWS_ENDPOINT_URL" in message


def test_wrong_credentials(refused, s3):
    s3.refuse_everybody()
    assert "access is refused" in refused("train", STORAGE, "Global.output_url=s3://bucket/run")


def test_a_hostile_archive(refused, s3, run_folder):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        opened.writestr("../out", b"1")
    s3.put("data.zip", buffer.getvalue())
    message = refused("train", DATA, f"{IMAGES}=s3://bucket/data.zip")
    assert "s3://bucket/data.zip: member '../out' would be written outside of the folder" in message


def test_inference_on_a_folder_in_object_storage(tool, s3, run_folder):
    weights = f"Global.pretrained_model={run_folder}/output/best_model"
    s3.put_folder("images", run_folder / "data" / "images" / "2")
    code, expected, _ = tool("infer", weights)
    assert code == 0
    code, out, err = tool("infer", weights, "Infer.infer_imgs=s3://bucket/images")
    assert code == 0, err
    assert out.count("class_ids") == expected.count("class_ids") > 0
