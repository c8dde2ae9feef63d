# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import numpy as np
import paddle
import pytest

from ppcls.loss import CELoss

LOGITS = np.array([[2.0, -1.0, 0.5], [0.0, 1.0, 3.0]])
LABELS = np.array([0, 1])
SOFT_LABELS = np.array([[0.7, 0.2, 0.1], [0.0, 0.5, 0.5]])


def cross_entropy_by_row(logits: np.ndarray, soft_labels: np.ndarray) -> np.ndarray:
    log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return -(soft_labels * log_probs).sum(axis=1)


def run(loss: CELoss, labels: np.ndarray, logits: np.ndarray = LOGITS, dtype: str = "float64") -> np.ndarray:
    return loss(paddle.to_tensor(logits.astype(dtype)), paddle.to_tensor(labels))["CELoss"].numpy()


def test_is_the_mean_negative_log_probability_of_the_label():
    expected = cross_entropy_by_row(LOGITS, np.eye(3)[LABELS]).mean()
    assert run(CELoss(), LABELS) == pytest.approx(expected, rel=1e-12)
    assert run(CELoss(), LABELS, dtype="float32") == pytest.approx(expected, rel=1e-6)


def test_labels_may_be_a_column():
    assert run(CELoss(), LABELS[:, None]) == run(CELoss(), LABELS)
    assert run(CELoss(epsilon=0.1), LABELS[:, None]) == run(CELoss(epsilon=0.1), LABELS)


def test_as_many_samples_as_classes_are_still_class_indexes():
    logits = np.vstack([LOGITS, [[0.1, 0.2, 0.3]]])
    labels = np.array([0, 1, 2])
    expected = cross_entropy_by_row(logits, np.eye(3)[labels]).mean()
    assert run(CELoss(), labels, logits) == pytest.approx(expected, rel=1e-12)


def test_smoothing_spreads_epsilon_over_all_classes():
    smoothed = 0.9 * np.eye(3)[LABELS] + 0.1 / 3
    expected = cross_entropy_by_row(LOGITS, smoothed).mean()
    assert run(CELoss(epsilon=0.1), LABELS) == pytest.approx(expected, rel=1e-6)


def test_soft_labels_are_used_as_they_are():
    expected = cross_entropy_by_row(LOGITS, SOFT_LABELS).mean()
    assert run(CELoss(), SOFT_LABELS) == pytest.approx(expected, rel=1e-12)
    assert run(CELoss(), SOFT_LABELS.astype("float32"), dtype="float32") == pytest.approx(expected, rel=1e-6)


def test_soft_labels_are_smoothed_too():
    expected = cross_entropy_by_row(LOGITS, 0.8 * SOFT_LABELS + 0.2 / 3).mean()
    assert run(CELoss(epsilon=0.2), SOFT_LABELS) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("epsilon", [None, 0.1])
def test_soft_labels_of_many_classes_keep_their_shares_in_half_precision(dtype, epsilon):
    # Whole numbers are the same in every type, so only the labels could lose something.
    logits = np.random.RandomState(0).randint(-8, 9, (4, 1000)).astype("float64")
    soft_labels = np.random.RandomState(1).dirichlet(np.full(1000, 0.01), 4)
    smooth = soft_labels if epsilon is None else 0.9 * soft_labels + 0.1 / 1000
    loss = CELoss(epsilon=epsilon)(paddle.to_tensor(logits).astype(dtype), paddle.to_tensor(soft_labels))["CELoss"]
    assert float(loss) == pytest.approx(cross_entropy_by_row(logits, smooth).mean(), rel=1e-5)


@pytest.mark.parametrize("labels", [LABELS, SOFT_LABELS])
def test_reductions(labels):
    soft_labels = np.eye(3)[labels] if labels.ndim == 1 else labels
    by_row = cross_entropy_by_row(LOGITS, soft_labels)
    np.testing.assert_allclose(run(CELoss("none"), labels), by_row, rtol=1e-12)
    assert run(CELoss("sum"), labels) == pytest.approx(by_row.sum(), rel=1e-12)


def test_gradient_is_probability_minus_smoothed_label():
    logits = paddle.to_tensor(LOGITS, stop_gradient=False)
    CELoss(epsilon=0.1)(logits, paddle.to_tensor(LABELS))["CELoss"].backward()
    probs = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
    expected = (probs - (0.9 * np.eye(3)[LABELS] + 0.1 / 3)) / 2
    np.testing.assert_allclose(logits.grad.numpy(), expected, atol=1e-7)


def test_epsilon_of_zero_is_no_smoothing():
    assert run(CELoss(epsilon=0), LABELS) == run(CELoss(), LABELS)


@pytest.mark.parametrize("epsilon", [1.0, -0.1, 1.5])
def test_epsilon_outside_its_range_is_refused(epsilon):
    with pytest.raises(ValueError, match="at least 0 and below 1"):
        CELoss(epsilon=epsilon)


@pytest.mark.parametrize(
    "labels",
    [np.zeros(3, "int64"), np.zeros((2, 3), "int64"), np.zeros((2, 4), "float32"), np.zeros(2, "float32")],
    ids=["samples", "integer matrix", "classes", "float indexes"],
)
def test_labels_that_do_not_fit_are_refused_with_both_shapes(labels):
    with pytest.raises(ValueError, match=r"do not fit logits \[2, 3\]; give int64 \[2\], or soft labels \[2, 3\]"):
        run(CELoss(), labels)


# Where PaddleClas's own figures are not wanted, with the figure wanted instead (None: refused).
CORRECTED = {
    '{} ["logits", "soft_label"]': "PaddleClas passes soft labels through softmax a second time",
    '{} ["logits", "teacher_logits"]': "the same; logits as labels, which need not sum to 1",
    '{"epsilon": 1.0} ["logits", "label"]': "PaddleClas takes an epsilon outside 0..1 for none",
    '{} [["logits", "logits2"], "label"]': "PaddleClas fails on a list of outputs; here the first counts",
}


def test_agrees_with_paddleclas_except_where_it_is_corrected(reference):
    family = json.loads((reference / "loss" / "CELoss.json").read_text())
    inputs = reference_inputs()
    checked, corrected = 0, set()
    for case in family["cases"]:
        if case["loss"] != "CELoss":
            continue
        key = f"{json.dumps(case['params'])} {json.dumps(case['inputs'])}"
        if key in CORRECTED:
            corrected.add(key)
            continue
        logits = paddle.to_tensor(inputs["logits"], stop_gradient=False)
        output = {"logits": logits} if isinstance(case["inputs"][0], dict) else logits
        loss = CELoss(**case["params"])(output, paddle.to_tensor(inputs[case["inputs"][1]]))["CELoss"]
        np.testing.assert_allclose(loss.numpy(), case["result"]["CELoss"], rtol=2e-6)
        loss.sum().backward()
        gradient = case["grad_of_first_scalar"]["logits"]
        np.testing.assert_allclose(logits.grad.numpy().ravel()[:8], gradient["first8"], rtol=1e-5, atol=1e-7)
        assert np.linalg.norm(logits.grad.numpy()) == pytest.approx(gradient["l2"], rel=1e-5)
        checked += 1
    assert checked >= 12
    assert corrected == set(CORRECTED)


def reference_inputs() -> dict[str, np.ndarray]:
    labels = np.random.RandomState(12).randint(0, 10, (8, 1)).astype("int64")
    scores = np.exp(np.random.RandomState(17).standard_normal((8, 10)))
    return {
        "logits": (np.random.RandomState(11).standard_normal((8, 10)) * 2).astype("float32"),
        "label": labels,
        "label_1d": labels.reshape(8),
        "soft_label": (scores / scores.sum(axis=1, keepdims=True)).astype("float32"),
    }
