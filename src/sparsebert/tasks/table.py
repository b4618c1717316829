"""The table of tasks: what ships in the package, nine of GLUE, four of CS224N. Plain data, no torch."""

from __future__ import annotations

from dataclasses import dataclass

from sparsebert.errors import unknown

GLUE_HUB = "nyu-mll/glue"
# Behind the name of a split that is a part of the official one.
SUBSET = "_subset"


@dataclass(frozen=True)
class CourseFiles:
    """The files of a task of Stanford's CS224N default project, as the course hands them out.

    They are tab separated, with a header; `train` and `validation` are their names without `.csv` or `.csv.gz`, and
    `label` is what they call the label column.
    """

    train: str
    validation: str
    label: str


@dataclass(frozen=True)
class TaskSpec:
    """What a task is: its columns, its labels, its metrics and where its data are.

    `columns` are the one or two text columns. `labels` are the class names in the order of their numbers, as on the
    Hugging Face hub; empty for regression. The first of `metrics` is the main one, the order being that of the GLUE
    tables: F1 before accuracy for the two paraphrase tasks, Pearson before Spearman. `kind` names a task kind.
    The first of `validation_splits` is the one that decides; `source` is the hub id and configuration, empty if not on
    the hub. `packaged` is the folder under `sparsebert/data` of a task that ships in the package, else empty. `bundle`
    rows of one label make one example of such a task: one sentence alone may not say enough. `course` are the files
    of a task of CS224N, which is on no hub.
    """

    name: str
    columns: tuple[str, ...]
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    description: str
    label: str = "label"
    kind: str = "classification"
    train_split: str = "train"
    validation_splits: tuple[str, ...] = ("validation",)
    source: tuple[str, ...] = ()
    packaged: str = ""
    bundle: int = 1
    course: CourseFiles | None = None

    @property
    def folders(self) -> tuple[str, ...]:
        """What the folder of its Parquet files may be called."""
        return (self.name, f"cs224n_{self.name}") if self.course else (self.name,)

    @property
    def main_metric(self) -> str:
        """Name of the metric that targets and comparisons are about."""
        return self.metrics[0]


_SPECS = (
    TaskSpec(
        name="reviews",
        columns=("text",),
        labels=("negative", "positive"),
        metrics=("accuracy",),
        description="Is a one-sentence review favourable? Ships in the package, no network needed",
        packaged="reviews",
    ),
    TaskSpec(
        name="review-domains",
        columns=("text",),
        labels=("books", "films", "food", "gadgets", "services", "travel"),
        metrics=("accuracy",),
        label="domain",
        description="What are three reviews of one kind about? Ships in the package, no network needed",
        packaged="reviews",
        bundle=3,
    ),
    TaskSpec(
        name="entities",
        columns=("text",),
        labels=("O", "B-DATE", "I-DATE", "B-LOC", "I-LOC", "B-ORG", "I-ORG", "B-PER", "I-PER"),
        metrics=("entity_f1", "tag_accuracy"),
        label="tags",
        kind="tokens",
        description="People, places, organisations and dates in a sentence. Ships in the package, no network needed",
        packaged="entities",
    ),
    TaskSpec(
        name="cola",
        columns=("sentence",),
        labels=("unacceptable", "acceptable"),
        metrics=("matthews", "accuracy"),
        description="Is the sentence grammatical English?",
        source=(GLUE_HUB, "cola"),
    ),
    TaskSpec(
        name="sst2",
        columns=("sentence",),
        labels=("negative", "positive"),
        metrics=("accuracy",),
        description="Sentiment of a phrase from a film review",
        source=(GLUE_HUB, "sst2"),
    ),
    TaskSpec(
        name="mrpc",
        columns=("sentence1", "sentence2"),
        labels=("not_equivalent", "equivalent"),
        metrics=("f1", "accuracy"),
        description="Do two news sentences say the same?",
        source=(GLUE_HUB, "mrpc"),
    ),
    TaskSpec(
        name="stsb",
        columns=("sentence1", "sentence2"),
        labels=(),
        metrics=("pearson", "spearman"),
        kind="regression",
        description="How similar are two sentences, from 0 to 5?",
        source=(GLUE_HUB, "stsb"),
    ),
    TaskSpec(
        name="qqp",
        columns=("question1", "question2"),
        labels=("not_duplicate", "duplicate"),
        metrics=("f1", "accuracy"),
        description="Do two Quora questions ask the same?",
        source=(GLUE_HUB, "qqp"),
    ),
    TaskSpec(
        name="mnli",
        columns=("premise", "hypothesis"),
        labels=("entailment", "neutral", "contradiction"),
        metrics=("accuracy",),
        validation_splits=("validation_matched", "validation_mismatched"),
        description="Does the premise entail the hypothesis? Matched genres decide, mismatched ones are reported",
        source=(GLUE_HUB, "mnli"),
    ),
    TaskSpec(
        name="qnli",
        columns=("question", "sentence"),
        labels=("entailment", "not_entailment"),
        metrics=("accuracy",),
        description="Does the sentence hold the answer to the question?",
        source=(GLUE_HUB, "qnli"),
    ),
    TaskSpec(
        name="rte",
        columns=("sentence1", "sentence2"),
        labels=("entailment", "not_entailment"),
        metrics=("accuracy",),
        description="Does the first text entail the second?",
        source=(GLUE_HUB, "rte"),
    ),
    TaskSpec(
        name="wnli",
        columns=("sentence1", "sentence2"),
        labels=("not_entailment", "entailment"),
        metrics=("accuracy",),
        description="Does the sentence entail itself with a pronoun replaced?",
        source=(GLUE_HUB, "wnli"),
    ),
    TaskSpec(
        name="sst5",
        columns=("sentence",),
        labels=("very negative", "negative", "neutral", "positive", "very positive"),
        metrics=("accuracy", "macro_f1"),
        description="Sentiment of a film review's sentence, in five degrees (CS224N)",
        course=CourseFiles("ids-sst-train", "ids-sst-dev", "sentiment"),
    ),
    TaskSpec(
        name="quora",
        columns=("sentence1", "sentence2"),
        labels=("not_duplicate", "duplicate"),
        metrics=("accuracy", "f1"),
        kind="pair_classification",
        description="Do two Quora questions, each read apart, ask the same? (CS224N)",
        course=CourseFiles("quora-train", "quora-dev", "is_duplicate"),
    ),
    TaskSpec(
        name="sts",
        columns=("sentence1", "sentence2"),
        labels=(),
        metrics=("pearson", "spearman"),
        kind="pair_similarity",
        description="How similar are two sentences, each read apart, from 0 to 5? (CS224N)",
        course=CourseFiles("sts-train", "sts-dev", "similarity"),
    ),
    TaskSpec(
        name="cfimdb",
        columns=("sentence",),
        labels=("negative", "positive"),
        metrics=("accuracy",),
        description="Is a film review, counterfactual or not, favourable? (CS224N)",
        course=CourseFiles("ids-cfimdb-train", "ids-cfimdb-dev", "sentiment"),
    ),
    TaskSpec(
        name="embeddings",
        columns=("text",),
        labels=(),
        metrics=("cosine", "neighbours"),
        kind="embeddings",
        description="Vectors as the model itself gives them, no labels: of reviews, or of your texts with --data",
        packaged="reviews",
    ),
)
_TABLE = {spec.name: spec for spec in _SPECS}


def task_names() -> list[str]:
    """All tasks of the table, in its order. A user's own file needs no entry here."""
    return list(_TABLE)


def task_spec(name: str) -> TaskSpec:
    """The table's row. Raises UserError with the allowed names, and the nearest one, for an unknown name."""
    if name not in _TABLE:
        raise unknown("task", name, _TABLE)
    return _TABLE[name]
