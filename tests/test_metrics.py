"""Metrics against examples worked by hand."""

import numpy as np
import pytest

from sparsebert.errors import UserError
from sparsebert.tasks.metrics import score, score_with_reasons
from sparsebert.tasks.table import task_names, task_spec


def logits_of(classes: list[int], width: int = 2) -> np.ndarray:
    """Logits whose largest entry is at the given class, none of them at a round place."""
    return np.eye(width)[classes] * 3.5 - 1.25


# Six rows: 2 true positives, 1 false positive, 1 false negative, 2 true negatives.
PREDICTED = logits_of([1, 1, 1, 0, 0, 0])
LABELS = np.array([1, 1, 0, 1, 0, 0])


def test_classification_by_hand():
    values = score(("accuracy", "f1", "matthews"), PREDICTED, LABELS)
    assert values["accuracy"] == pytest.approx(4 / 6)
    assert values["f1"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    # (tp*tn - fp*fn) / sqrt((tp+fp)(tp+fn)(tn+fp)(tn+fn)) = (4 - 1) / sqrt(3*3*3*3)
    assert values["matthews"] == pytest.approx(3 / 9)


def test_f1_counts_class_one_as_positive():
    values = score(("f1",), logits_of([1, 0, 0, 0]), np.array([1, 1, 1, 0]))
    assert values["f1"] == pytest.approx(2 * 1 / (2 * 1 + 0 + 2))


def test_accuracy_of_three_classes():
    assert score(("accuracy",), logits_of([0, 2, 1, 1], 3), np.array([0, 2, 2, 1])) == {"accuracy": 0.75}


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_correlations_by_hand(shape):
    predictions = np.array([1.0, 2.0, 3.0, 10.0], dtype=np.float32).reshape(shape)
    values = score(("pearson", "spearman"), predictions, np.array([1.0, 3.0, 2.0, 4.0]))
    # Deviations (-3,-2,-1,6) and (-1.5,0.5,-0.5,1.5): 13 / sqrt(50 * 5).
    assert values["pearson"] == pytest.approx(13 / np.sqrt(250))
    # Ranks (1,2,3,4) and (1,3,2,4): 1 - 6 * 2 / (4 * 15).
    assert values["spearman"] == pytest.approx(0.8)


def test_spearman_ties_share_their_mean_rank():
    values = score(("spearman",), np.array([1.0, 1.0, 2.0]), np.array([0.0, 1.0, 2.0]))
    # Ranks (1.5,1.5,3) and (1,2,3): deviations (-.5,-.5,1) and (-1,0,1): 1.5 / sqrt(1.5 * 2).
    assert values["spearman"] == pytest.approx(1.5 / np.sqrt(3))


@pytest.mark.parametrize("side", ["predictions", "labels"])
def test_correlation_with_a_constant_side_is_absent_with_a_reason(side):
    varied, constant = np.array([1.0, 2.0, 4.0]), np.full(3, 2.5)
    pair = (constant, varied) if side == "predictions" else (varied, constant)
    values, reasons = score_with_reasons(("pearson", "spearman"), *pair)
    assert values == {}
    assert reasons == {"pearson": f"all {side} are the same", "spearman": f"all {side} are the same"}


def test_correlation_of_one_row_is_absent():
    assert score(("pearson",), np.array([1.0]), np.array([1.0])) == {}


def test_f1_without_any_positive_is_absent_and_accuracy_stays():
    values, reasons = score_with_reasons(("f1", "accuracy"), logits_of([0, 0]), np.array([0, 0]))
    assert values == {"accuracy": 1.0}
    assert "class 1" in reasons["f1"]


def test_f1_without_predicted_positives_is_zero():
    assert score(("f1",), logits_of([0, 0]), np.array([1, 0])) == {"f1": 0.0}


def test_f1_of_three_classes_is_absent():
    assert "2 classes, not 3" in score_with_reasons(("f1",), logits_of([0, 2], 3), np.array([0, 2]))[1]["f1"]


def test_matthews_of_constant_predictions_is_zero():
    assert score(("matthews",), logits_of([0, 0, 0]), np.array([1, 0, 1])) == {"matthews": 0.0}


def test_matthews_of_constant_labels_is_absent():
    assert score_with_reasons(("matthews",), logits_of([0, 1]), np.array([1, 1])) == (
        {},
        {"matthews": "all labels are the same"},
    )


@pytest.mark.parametrize(
    ("metrics", "logits", "labels", "message"),
    [
        (("accurac",), PREDICTED, LABELS, "Unknown metric 'accurac'.*Did you mean 'accuracy'"),
        (("accuracy",), PREDICTED[:5], LABELS, "do not fit metric 'accuracy'"),
        (("accuracy",), PREDICTED[:, 0], LABELS, "do not fit metric 'accuracy'"),
        (("pearson",), PREDICTED, LABELS, "do not fit metric 'pearson'"),
        (("accuracy",), PREDICTED * np.nan, LABELS, "not finite"),
        (("accuracy",), PREDICTED[:0], LABELS[:0], "no rows"),
    ],
)
def test_bad_input(metrics, logits, labels, message):
    with pytest.raises(UserError, match=message):
        score(metrics, logits, labels)


def test_every_metric_of_the_task_table_exists():
    used = {metric for name in task_names() for metric in task_spec(name).metrics}
    of_texts = {"accuracy", "f1", "macro_f1", "matthews", "pearson", "spearman", "cosine", "neighbours"}
    assert used == of_texts | {"entity_f1", "tag_accuracy"}


# Fixed predictions, as a file of a GLUE task would hold them: 12 pairs of MNLI, 20 sentences of CoLA, 8 pairs of STS-B.
MNLI = ([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2], [0, 1, 2, 1, 1, 2, 2, 1, 0, 0, 0, 2])
COLA = ([1] * 12 + [0] * 8, [1] * 9 + [0] * 3 + [1] * 2 + [0] * 6)
STSB = ([0.2, 4.8, 2.5, 3.1, 1.0, 4.0, 2.0, 3.3], [0.0, 5.0, 2.2, 3.8, 1.4, 3.6, 2.4, 3.0])


def test_mnli_of_a_fixed_list():
    predicted, labels = MNLI
    wrong = sum(one != other for one, other in zip(predicted, labels, strict=True))
    assert wrong == 4
    assert score(("accuracy",), logits_of(predicted, 3), np.array(labels)) == {"accuracy": pytest.approx(1 - 4 / 12)}


def test_cola_of_a_fixed_list_as_a_correlation_of_two_columns():
    """It is the Pearson correlation of two columns of 0 and 1, and the root of chi squared over n, with its sign."""
    predicted, labels = COLA
    values = score(("matthews", "accuracy"), logits_of(predicted), np.array(labels))
    true_positive, false_positive, false_negative, true_negative = 9, 3, 2, 6
    assert values["accuracy"] == pytest.approx(15 / 20)
    by_columns = np.corrcoef(predicted, labels)[0, 1]
    counts = np.array([[true_negative, false_positive], [false_negative, true_positive]], dtype=float)
    expected = counts.sum(1, keepdims=True) * counts.sum(0, keepdims=True) / 20
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    assert values["matthews"] == pytest.approx(by_columns) == pytest.approx(np.sqrt(chi_squared / 20))
    assert values["matthews"] == pytest.approx((9 * 6 - 3 * 2) / np.sqrt(12 * 11 * 9 * 8))


def test_stsb_of_a_fixed_list_by_sums_and_by_ranks():
    predicted, labels = (np.array(side) for side in STSB)
    values = score(("pearson", "spearman"), predicted.astype(np.float32), labels)
    n, product = len(labels), float((predicted * labels).sum())
    above = n * product - predicted.sum() * labels.sum()
    spread = [n * (side**2).sum() - side.sum() ** 2 for side in (predicted, labels)]
    assert values["pearson"] == pytest.approx(above / np.sqrt(spread[0] * spread[1]), abs=1e-6)
    # Ranks 1 8 4 5 2 7 3 6 and 1 8 3 7 2 6 4 5: differences 0 0 1 -2 0 1 -1 1, squares sum to 8.
    assert values["spearman"] == pytest.approx(1 - 6 * 8 / (8 * 63))
