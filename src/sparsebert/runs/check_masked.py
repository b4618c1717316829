"""Two masked language models on the same texts: what each token's loss is where it alone is hidden."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from transformers import PreTrainedTokenizerBase

from sparsebert.data.read import column
from sparsebert.errors import UserError
from sparsebert.measurement.text_loss import loss_sums
from sparsebert.records import Score
from sparsebert.runs.check import failures
from sparsebert.runs.checked import CheckedTexts, CheckResult, in_turns
from sparsebert.runs.pseudo_perplexity import NAME as PSEUDO_PERPLEXITY
from sparsebert.runs.scoring import nats_score, split_scores
from sparsebert.tasks.kind import ConstantAnswer
from sparsebert.tasks.masked_lm import COUNT, LOSS, MASKED_LM
from sparsebert.tasks.table import TaskSpec
from sparsebert.training.inference import Inference

SPEC = TaskSpec("check", ("text",), (), MASKED_LM.metrics, "", kind="masked_lm")


def check_masked(
    first: Inference,
    second: Inference,
    given: CheckedTexts,
    max_drop: float | None = None,
    done: Callable[[int], None] = lambda count: None,
) -> CheckResult:
    """Ask both models about every token, and compare: accuracy, loss and pseudo-perplexity of each.

    The gate is the accuracy, which may fall by `max_drop` points at most. With other tokenizers the models have other
    tokens, and a loss is one of other questions; a note says so. Raises UserError for a file that cannot be read, for
    texts with labels, and for texts without a token that could be hidden.
    """
    if given.label is not None or given.by_query:
        raise UserError("Masked language models are compared on texts alone", fix="leave out --label-column")
    if given.file.is_dir():
        raise UserError("Masked language models are compared on a file of texts", got=given.file)
    name, *others = given.text
    if others:
        raise UserError("Masked language models read single texts", got=", ".join(given.text))
    texts = [str(text) for text in column(given.table, name, given.file.name)]
    sums = [loss_sums(model, texts, done) for model in (first, second)]
    if not all(each[:, COUNT].any() for each in sums):
        raise UserError("There is no token that could be hidden", got=f"{len(texts)} texts")
    alike = _entries(first) == _entries(second)
    other = "the tokenizers differ, so that the losses are of other tokens: compare what a task needs instead"
    found = CheckResult(
        rows=len(texts),
        runtimes=(first.runtime, second.runtime),
        metric=SPEC.main_metric,
        first=_scores(sums[0], None),
        second=_scores(sums[1], sums[0]),
        notes=(f"{int(sums[0][:, COUNT].sum()):,} tokens, each hidden alone", *(() if alike else (other,))),
        latency=in_turns((_asks(first, texts), _asks(second, texts)), len(texts)),
    )
    return found.model_copy(update={"failures": failures(found, max_drop)})


def _entries(model: Inference) -> dict[str, int]:
    tokenizer = model.reader.tokenizer
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    return tokenizer.get_vocab()


def _scores(sums: np.ndarray, before: np.ndarray | None) -> tuple[Score, ...]:
    """Of sums as of MaskedLM [texts, 3], the accuracy first."""
    labels, nothing = np.zeros((len(sums), 1), dtype=int), ConstantAnswer(np.array([0.0, 0.0, 1.0]), "")
    accuracy = split_scores(SPEC, "texts", sums, labels, nothing, before)
    own, others = sums[:, [LOSS, COUNT]], None if before is None else before[:, [LOSS, COUNT]]
    nats = [nats_score("loss", "texts", own, others)]
    nats.append(nats_score(PSEUDO_PERPLEXITY, "texts", own, others, perplexity=True))
    return tuple(one.model_copy(update={"baseline": None}) for one in (*accuracy, *nats))


def _asks(model: Inference, texts: list[str]) -> Callable[[int], None]:
    """Reads a text, and lets the model answer."""

    def ask(row: int) -> None:
        columns, _ = model.reader.read([texts[row]])
        model.run([{name: values[0] for name, values in columns.items()}])

    return ask
