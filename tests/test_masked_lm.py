"""The task kind of masked language models: sums by text, loss and accuracy by hand, and no labels of the user's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from transformers.modeling_outputs import MaskedLMOutput

from sparsebert.errors import UserError
from sparsebert.tasks.bootstrap import resampled_scores
from sparsebert.tasks.kind import IGNORED, TextColumn
from sparsebert.tasks.masked_lm import MASKED_LM
from sparsebert.tasks.metrics import constant_scores, score
from tiny import tiny_model

LABELS = np.array([[IGNORED, 1, IGNORED], [2, IGNORED, 0]])


class Fixed(torch.nn.Module):
    """Says token 1 of all places with a probability of a half, and tokens 0 and 2 with a quarter each."""

    def forward(self, input_ids: torch.Tensor) -> MaskedLMOutput:
        logits = torch.tensor([0.25, 0.5, 0.25]).log().expand(*input_ids.shape, 3)
        return MaskedLMOutput(logits=logits)


def outputs() -> np.ndarray:
    labels = torch.tensor(LABELS)
    return MASKED_LM.read(Fixed(), {"input_ids": torch.zeros_like(labels)}, {"labels": labels}).numpy()


def test_outputs_are_sums_over_the_hidden_tokens_of_a_text() -> None:
    assert outputs() == pytest.approx(np.array([[math.log(2), 1, 1], [2 * math.log(4), 0, 2]]))
    assert MASKED_LM.mean_loss(outputs(), LABELS) == pytest.approx((math.log(2) + 2 * math.log(4)) / 3)
    assert score(["masked_accuracy"], outputs(), LABELS) == {"masked_accuracy": pytest.approx(1 / 3)}


def test_loss_is_that_of_transformers() -> None:
    model = tiny_model("bert", "masked_lm")
    ids = torch.randint(5, 90, (3, 8), generator=torch.Generator().manual_seed(0))
    labels = torch.where(torch.arange(8) % 3 == 0, ids, IGNORED)
    with torch.no_grad():
        given = model(ids, labels=labels)
        read = MASKED_LM.read(model, {"input_ids": ids}, {"labels": labels})
    assert float(MASKED_LM.loss(MASKED_LM.outputs(given), labels)) == pytest.approx(float(given.loss), rel=1e-6)
    assert MASKED_LM.mean_loss(read.numpy(), labels.numpy()) == pytest.approx(float(given.loss), rel=1e-5)


def test_the_constant_answer_knows_how_frequent_tokens_are() -> None:
    labels = np.array([[1, 1, 1, IGNORED], [2, IGNORED, IGNORED, IGNORED]])
    constant = MASKED_LM.constant(labels, ())
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert constant.outputs == pytest.approx([entropy, 0.75, 1])
    assert constant_scores(["masked_accuracy"], constant.everywhere(labels), labels) == {
        "masked_accuracy": pytest.approx(0.75)
    }


def test_resampled_accuracy_is_around_the_value() -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(5, 20, 200)
    right = rng.binomial(counts, 0.3)
    many = np.stack([counts * 1.0, right, counts], axis=1)
    found = resampled_scores("masked_accuracy", many, np.zeros((200, 4), int))
    assert found.mean() == pytest.approx(right.sum() / counts.sum(), abs=0.003) and 0.002 < found.std() < 0.02


def test_distillation_has_nothing_to_learn_from_itself() -> None:
    logits = torch.randn(4, 7, generator=torch.Generator().manual_seed(0))
    student = logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(MASKED_LM.distillation(student, logits, 2.0), student)
    assert float(gradient.abs().max()) < 1e-6
    other = logits.flip(0).requires_grad_()
    (gradient,) = torch.autograd.grad(MASKED_LM.distillation(other, logits, 2.0), other)
    assert float(gradient.abs().max()) > 0.01


def test_labels_of_the_user_are_refused() -> None:
    for call in (
        lambda: MASKED_LM.from_text(TextColumn(["a"], "a.csv", "label", ",")),
        lambda: MASKED_LM.label_names(["a"], "a.csv"),
        lambda: MASKED_LM.labels(["a"], (), "a.csv"),
    ):
        with pytest.raises(UserError, match=r"learns from text without labels; got a\.csv.*leave the label column out"):
            call()


def test_many_rows_are_read_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = torch.tensor(LABELS).repeat(3, 1)
    given = ({"input_ids": torch.zeros_like(labels)}, {"labels": labels})
    whole = MASKED_LM.read(Fixed(), *given)
    monkeypatch.setattr("sparsebert.tasks.masked_lm.TOKENS_AT_ONCE", 7)
    assert torch.equal(MASKED_LM.read(Fixed(), *given), whole) and whole.shape == (6, 3)
