"""What a run has to say of its own scores: models and teachers that are no better than a constant answer."""

from __future__ import annotations

from collections.abc import Sequence

from sparsebert.records import Decisions, ModelResult, Score
from sparsebert.reports import values as v
from sparsebert.reports.tables import metric_name
from sparsebert.runs.context import RunContext
from sparsebert.runs.pseudo_perplexity import NAME as PSEUDO_PERPLEXITY


def main_score(context: RunContext, scores: Sequence[Score]) -> Score | None:
    """The score of the task's main metric on the split that decides; None where it has no value."""
    return next((one for one in scores if one.metric == context.spec.main_metric), None)


def remarks(context: RunContext, models: Sequence[ModelResult]) -> list[str]:
    """What there is to say of the finished models of a run, the first of which may be the dense one."""
    dense = [model for model in models[:1] if model.name == "dense"]
    doubts = [doubt(context, model.scores, model.decisions) for model in dense]
    told = (said for model in models for said in (*nats_remarks(model), *_vector_remarks(context, model)))
    return [*filter(None, (*doubts, _no_better(context, models[len(dense) :]))), *told]


def _no_better(context: RunContext, models: Sequence[ModelResult]) -> str | None:
    """One line that names all models which a constant answer is not shown to be worse than; None where there are none.

    A run of removals says it of its whole network itself.
    """
    said = {
        model.name: (one, main_score(context, model.scores))
        for model in models
        if model.prune_study is None and (one := collapse(context, model.name, model.scores, model.decisions))
    }
    if len(said) < 2:
        return next((one for one, _ in said.values()), None)
    each = ", ".join(name if score is None else f"{name} {_value(score)}" for name, (_, score) in said.items())
    always = next((score.baseline for _, score in said.values() if score is not None), None)
    gives = "" if always is None else f" ({metric_name(context.spec.main_metric).lower()} {v.fraction(always)})"
    return f"No better than {context.constant.said}{gives}: {each}"


def _value(score: Score) -> str:
    between = "" if score.low is None or score.high is None else f" ({_between(score.low, score.high)})"
    return f"{v.fraction(score.value)}{between}"


def _vector_remarks(context: RunContext, model: ModelResult) -> list[str]:
    """Of vectors, the metrics that the table of models has no room for; the dense model's are those it is judged by."""
    if context.kind.head != "embeddings" or model.name == "dense":
        return []
    further = (one for one in model.scores if one.metric in context.spec.metrics[1:])
    return [
        f"{model.name}: {metric_name(one.metric).lower()} {v.fraction(one.value)} on {one.examples:,} rows of "
        f"{one.split}"
        + ("" if one.low is None or one.high is None else f", 95% interval {_between(one.low, one.high)}")
        for one in further
    ]


def nats_remarks(model: ModelResult) -> list[str]:
    """A line about the loss of hidden tokens and the pseudo-perplexity of a model that has both."""
    scores, before = ({one.metric: one for one in each} for each in (model.scores, model.one_shot_scores))
    if "loss" not in scores or PSEUDO_PERPLEXITY not in scores:
        return []
    untrained = f" ({before['loss'].value:.3f} before training)" if "loss" in before else ""
    each = f"{model.name}: loss {scores['loss'].value:.3f}{untrained} nats a hidden token"
    alone = scores[PSEUDO_PERPLEXITY]
    return [f"{each}; pseudo-perplexity {alone.value:,.2f} of {alone.examples} validation texts"]


def doubt(context: RunContext, scores: Sequence[Score], decided: Decisions | None) -> str | None:
    """A line for a dense model that `collapse` is true of; else None."""
    said = collapse(context, "dense", scores, decided)
    order = "the label order of the data is not the model's own (id2label), or " if context.spec.labels else ""
    causes = f"{order}it was trained too little"
    return said and f"{said}. Possible causes: {causes}. Changes against it say little"


def collapse(context: RunContext, name: str, scores: Sequence[Score], decided: Decisions | None) -> str | None:
    """A line for a model that says always the same, or whose score is not above what that would give; else None."""
    score = main_score(context, scores)
    if decided is not None and decided.only_class is not None:
        return f'{name} predicts one class, "{decided.only_class}", for every validation example{_beside(score)}'
    if score is not None and score.above_baseline is False:
        return f"{name} is no better than {context.constant.said}{_beside(score)}"
    return None


def _beside(score: Score | None) -> str:
    if score is None or score.baseline is None:
        return ""
    between = "" if score.low is None or score.high is None else f", 95% interval {_between(score.low, score.high)}"
    constant = f"always the same gives {v.fraction(score.baseline)}"
    return f" ({metric_name(score.metric).lower()} {v.fraction(score.value)}{between}; {constant})"


def _between(low: float, high: float) -> str:
    return f"{v.fraction(low)} to {v.fraction(high)}"
