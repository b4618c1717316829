"""What was measured of a model: scores, sparsities, sizes, shapes, times, decisions.

A value that could not be computed is absent. Units are in the names; times are medians with quartiles.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(gt=0)]
Positive = Annotated[float, Field(gt=0)]
# The split of a score on the rows that were trained on.
TRAIN = "train"


class Part(BaseModel):
    """Base of every part of a record: frozen and strict; a number that is none could not be read back."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Score(Part):
    """One metric on one split; `value` as the metric is defined (accuracy 0-1, correlations -1-1)."""

    metric: str
    value: float
    split: str
    examples: Count
    low: float | None = Field(default=None, description="of the 95 % interval by bootstrap over the examples")
    high: float | None = Field(default=None, description="of the same interval")
    baseline: float | None = Field(
        default=None,
        description="what always giving the majority class of the train labels would score; of correlations, which a "
        "constant has none of, 0",
    )
    change_low: float | None = Field(
        default=None, description="of the 95 % interval of the difference from the dense model, paired by example"
    )
    change_high: float | None = Field(default=None, description="of the same interval")

    @property
    def above_baseline(self) -> bool | None:
        """Whether its interval lies above the baseline; None where that is not known."""
        if self.baseline is None:
            return None
        if self.low is None:
            return None if self.value > self.baseline else False
        return self.low > self.baseline


class LabelThresholds(Part):
    """From which probability on a model gives each label, by name."""

    values: dict[str, float]
    rows: int | None = Field(
        default=None,
        description="train rows that no training of the run saw, on which they were chosen; none = the model had them",
    )


class VocabularyLeft(Part):
    """Entries of a tokenizer that are left of those before, and validation texts that are read otherwise without them.

    A pair is two texts.
    """

    entries: Count
    before: Count
    texts_changed: int
    texts: Count


class Sparsity(Part):
    """Fractions, 0-1, of the weights and bytes of the model that it came from: cut away or exactly zero."""

    encoder_linear: float
    whole_model: float
    bytes_on_disk: float


class Size(Part):
    """What a model holds."""

    parameters: Count
    encoder_linear_parameters: int
    embedding_parameters: int
    weight_bytes: int = Field(description="of the weights in memory")
    bytes_on_disk: int | None = Field(default=None, description="of the weight files, which may be packed")
    flops: int | None = Field(default=None, description="of one forward pass at flops_batch x flops_length")
    flops_batch: int | None = None
    flops_length: int | None = None

    @property
    def file_bytes(self) -> int:
        """Bytes of the weight files; a record without them is of plain files, which hold the weights as they are."""
        return self.weight_bytes if self.bytes_on_disk is None else self.bytes_on_disk


NumberFormat = Literal["float32", "float16", "bf16", "int8", "int4"]


class Stored(Part):
    """What numbers the matrices of the layers and the tables of embeddings are in the file; in memory all are floats.

    `int8` and `int4` are codes with scales (see `pack`).
    """

    weights: NumberFormat
    embeddings: NumberFormat


class Shape(Part):
    """Units kept in each layer of the original model; 0 heads or neurons = that block is gone."""

    heads: tuple[int, ...]
    neurons: tuple[int, ...]
    dropped_layers: tuple[int, ...] = ()
    full_heads: int = Field(gt=0, le=4096)
    full_neurons: int = Field(ge=0, description="of the largest layer; 0 = a model without feedforward blocks")
    hidden: Count | None = Field(default=None, description="dimensions of the hidden states left; none = all")
    full_hidden: Count | None = Field(default=None, description="those of the original model; none = all are left")
    kept_heads: tuple[tuple[int, ...], ...] = Field(
        default=(), description="which heads of each layer of the original model stayed, from 0"
    )
    head_importance: tuple[tuple[float, ...], ...] = Field(
        default=(),
        description="of every head of each layer of the original model: the error of its block once it goes too",
    )

    @model_validator(mode="after")
    def _of_one_model(self) -> Shape:
        layers, kept = len(self.heads), self.kept_heads
        lists = (self.neurons, *filter(None, (kept, self.head_importance)))
        if not layers or {*map(len, lists)} != {layers} or {*map(len, self.head_importance)} - {self.full_heads}:
            raise ValueError("a shape needs one entry a layer in each of its lists, and importances one a head")
        if not set(self.dropped_layers) <= set(range(layers)):
            raise ValueError("a dropped layer must be one of the layers")
        if not 0 <= min(self.heads) <= max(self.heads) <= self.full_heads or max(self.neurons) > self.full_neurons:
            raise ValueError("a layer has no more heads and neurons than the largest has")
        if (self.hidden is None) != (self.full_hidden is None) or (self.hidden or 0) > (self.full_hidden or 0):
            raise ValueError("hidden states have no more dimensions than those of the original model")
        if kept and (tuple(map(len, kept)) != self.heads or not set(sum(kept, ())) <= set(range(self.full_heads))):
            raise ValueError("the heads kept must be heads of their layer, and as many as it has left")
        return self


class TimeSummary(Part):
    """What was measured of one variant in interleaved rounds; ratios are of paired rounds against the baseline."""

    rounds: Count
    median_ms: Positive
    q25_ms: Positive
    q75_ms: Positive
    speedup: Positive | None = None
    speedup_q25: Positive | None = None
    speedup_q75: Positive | None = None
    speedup_low: Positive | None = Field(default=None, description="of the 95 % interval of the median ratio")
    speedup_high: Positive | None = Field(default=None, description="of the same interval")


NOT_HERE = "not measurable here"
"""What is said in the place of an energy that no counter of the machine tells."""


class EnergyUse(Part):
    """Joules that 1,000 texts take, with all else that the machine does meanwhile: medians of interleaved rounds.

    A saving is the baseline's energy over this one's, of paired rounds: 2 = half of it.
    """

    source: str
    rounds: Count
    round_s: Positive = Field(description="seconds that each round took at the least")
    median_j: Positive
    q25_j: Positive
    q75_j: Positive
    saving: Positive | None = None
    saving_low: Positive | None = Field(default=None, description="of the 95 % interval of the median saving")
    saving_high: Positive | None = Field(default=None, description="of the same interval")


class Timing(TimeSummary):
    """The times of a forward pass, and what it was a pass of."""

    scope: Literal["encoder", "model"]
    backend: str
    dtype: str
    attention: str
    batch: Count
    length: Count
    threads: Count
    tokens_per_s: Positive
    energy: EnergyUse | None = Field(default=None, description="of whole models only, and where it was asked for")
    energy_missing: str | None = Field(default=None, description="why energy that was asked for is not there")


class Flip(Part):
    """A validation example that a model decides otherwise than the dense model; classes by name."""

    text: str
    label: str
    dense: str
    own: str


class TypeCount(Part):
    """Entities of one type: how many are `given`, how many are `there`, and how many of both are `right`."""

    label: str
    right: int
    given: int
    there: int

    @property
    def f1(self) -> float | None:
        """0-1; none where there is no entity, and none is given."""
        every = self.given + self.there
        return 2 * self.right / every if every else None


class Decisions(Part):
    """What a classifier said on the validation split that decides; classes in the order of their numbers."""

    classes: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...] = Field(description="examples by [true class][predicted class]")
    agreement: float | None = Field(
        default=None, description="fraction decided as by the dense model; none for that itself"
    )
    flips: tuple[Flip, ...] = Field(default=(), description="some of the examples decided otherwise")
    types: tuple[TypeCount, ...] = Field(default=(), description="of tags of words; an example is a word then")

    @model_validator(mode="after")
    def _square(self) -> Decisions:
        count = len(self.classes)
        if count == 0 or [len(row) for row in self.confusion] != [count] * count:
            raise ValueError("a confusion matrix needs a row and a column for each class")
        return self

    @property
    def only_class(self) -> str | None:
        """The one class that every example is given, if it is one."""
        given = [
            name for name, column in zip(self.classes, zip(*self.confusion, strict=True), strict=True) if any(column)
        ]
        return given[0] if len(given) == 1 else None
