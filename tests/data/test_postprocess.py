# SPDX-License-Identifier: Apache-2.0
"""Topk: classes, probabilities, names."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest

from ppcls.data import Topk
from ppcls.utils.errors import DataError

LOGITS = np.log(np.array([[0.1, 0.6, 0.3], [0.5, 0.25, 0.25]], np.float32)) + np.float32(3)


def test_probabilities_come_best_first():
    assert Topk(2)(LOGITS) == [
        {"class_ids": [1, 2], "scores": [0.6, 0.3], "label_names": []},
        {"class_ids": [0, 1], "scores": [0.5, 0.25], "label_names": []},
    ]


def test_every_recorded_result_is_reproduced(reference):
    data = json.loads((reference / "metric" / "Postprocess.json").read_text())
    checked = 0
    for case in data["cases"]:
        if case["op"] != "Topk":
            continue
        name = case["input"]["logits"] if isinstance(case["input"], dict) else case["input"]
        source = data["inputs"][name]
        logits = np.array(source["values"], np.float32).reshape(source["shape"])
        results = Topk(**case["params"])(logits)
        for actual, expected in zip(results, case["result"]):
            np.testing.assert_allclose(actual["scores"], expected["scores"], atol=1.1e-5)
            if name == "ties_logits":
                # Classes 2 and 7 lead; which of the eight equal others is third depends on the machine's sort.
                assert actual["class_ids"] == [2, 7, 0] and expected["class_ids"][:2] == [2, 7]
            else:
                assert actual["class_ids"] == expected["class_ids"]
            assert actual["label_names"] == expected["label_names"]
        checked += 1
    assert checked == 4


def test_more_than_all_classes_gives_all():
    assert [len(result["class_ids"]) for result in Topk(5)(LOGITS)] == [3, 3]


def test_large_logits_stay_finite():
    (result,) = Topk(2)(np.array([[1000.0, -1000.0]], np.float32))
    assert result["scores"] == [1.0, 0.0]


def test_file_names_are_passed_on():
    assert [result["file_name"] for result in Topk()(LOGITS, ["a.jpg", "b.jpg"])] == ["a.jpg", "b.jpg"]
    assert "file_name" not in Topk()(LOGITS)[0]


@pytest.mark.parametrize(
    ("content", "delimiter"),
    [
        ("0 tench, Tinca\n1 goldfish\n2 great white shark\n", None),
        ("\ufeff0 tench, Tinca\r\n1 goldfish\r\n\r\n2 great white shark", None),
        ("0:tench, Tinca\n1:goldfish\n2:great white shark\n", ":"),
    ],
)
def test_names_come_from_the_file(tmp_path, content, delimiter):
    path = tmp_path / "labels.txt"
    path.write_bytes(content.encode())
    results = Topk(2, str(path), delimiter)(LOGITS)
    assert [result["label_names"] for result in results] == [
        ["goldfish", "great white shark"],
        ["tench, Tinca", "goldfish"],
    ]


def test_names_can_be_given_instead():
    post = Topk()
    post.labels = {0: "cat", 1: "dog", 2: "cow"}
    assert [result["label_names"] for result in post(LOGITS)] == [["dog"], ["cat"]]


def test_a_missing_file_gives_one_warning_and_no_names(tmp_path, caplog):
    path = tmp_path / "none.txt"
    post = Topk(1, str(path))
    with caplog.at_level(logging.WARNING):
        assert [result["label_names"] for result in post(LOGITS) + post(LOGITS)] == [[]] * 4
    assert [record.getMessage() for record in caplog.records] == [
        f"class_id_map_file: {path}: cannot be read (No such file or directory); results have no label_names"
    ]


@pytest.mark.parametrize("line", ["dog 1", "-1 dog", "1"])
def test_a_line_without_a_number_or_a_name_is_named(tmp_path, line):
    path = tmp_path / "labels.txt"
    path.write_text(f"0 cat\n{line}\n")
    with pytest.raises(DataError) as caught:
        Topk(1, str(path))(LOGITS)
    assert str(caught.value) == f"{path}:2: {line!r} is no class number with a name; expected: 0 name"


def test_a_file_of_another_model_is_refused(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("0 cat\n")
    with pytest.raises(DataError, match="labels.txt: no name for class 1 among 1; take the file"):
        Topk(1, str(path))(LOGITS)


def test_a_bad_setting_is_refused():
    with pytest.raises(ValueError, match="topk must be at least 1; got 0"):
        Topk(0)


def test_probabilities_are_taken_as_they_are():
    probs = np.array([[0.125, 0.5, 0.25, 0.125], [0.25, 0.25, 0.5, 0.0]], np.float32)
    results = Topk(3).of_probs(probs, ["a.png", "b.png"])
    assert [(each["class_ids"], each["scores"], each["file_name"]) for each in results] == [
        ([1, 2, 0], [0.5, 0.25, 0.125], "a.png"),
        ([2, 0, 1], [0.5, 0.25, 0.25], "b.png"),
    ]
