"""What the recipes of all kinds have: the model, the task, the seeds and the setting of timings."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from sparsebert.recipe.masking import Hidden
from sparsebert.recipe.schema import Columns, FolderName, Measure, Plain, Title

SCHEMA = 1
Pooling = Literal["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
"""By the names of sentence-transformers."""


class Recipe(Plain, frozen=True):
    """What decides a run. Every kind of run has a recipe of its own (`kind`), with these keys and more."""

    schema_version: int = Field(default=SCHEMA, alias="schema", description="version of the recipe's format")
    kind: str = Field(
        description="the type of run: compress, train, fff, finetune, multitask, prune-curve, or your own "
        "package.module:name"
    )
    name: Title | None = Field(
        default=None, description="how reports call it where several recipes are shown; null = the file's name"
    )
    model: str = Field(default="sentence-transformers/all-MiniLM-L6-v2", description="folder or hub name")
    task: FolderName = Field(
        default="reviews", description="a name of `sparsebert tasks`, or any other name with `data`"
    )
    data: str | None = Field(
        default=None, description="your own file or folder, or the folder of the GLUE tasks; null = the hub"
    )
    columns: Columns = Field(default=Columns(), description="where text and label sit in your own file")
    max_length: int = Field(default=128, ge=4, description="tokens; longer texts are cut")
    seed: int = Field(default=0, ge=0, lt=2**32, description="decides new weights, batches and noise")
    data_seed: int = Field(
        default=0, ge=0, lt=2**32, description="which rows: apart from `seed`, so that runs over seeds see the same"
    )
    train_examples: int | None = Field(
        default=None, ge=8, description="use only the first n rows, after a shuffle with data_seed"
    )
    hold_out: float | None = Field(
        default=None,
        gt=0,
        lt=0.9,
        description="part of the train rows that takes the place of the validation splits, so that a setting can be "
        "chosen without a look at these; null = scores are of the validation splits",
    )
    threshold_rows: float = Field(
        default=0.1,
        ge=0,
        lt=0.9,
        description="of multilabel: part of the train rows that no training sees, on which is chosen from which "
        "probability on each label is given; 0 = none is chosen, and models keep what they have, else 0.5",
    )
    masking: Hidden = Field(default=Hidden(), description="of masked_lm: which tokens are hidden, and by what")
    pooling: Pooling | None = Field(
        default=None,
        description="of embeddings: how the vectors of tokens become the one of a text, for a model whose folder does "
        "not say so; null = as it says",
    )
    normalize: bool = Field(default=False, description="with `pooling`: true = vectors get length 1")
    score_train: bool = Field(
        default=False, description="true = every finished model's scores and mean loss on all train rows too"
    )
    measure: Measure = Field(default=Measure(), description="batch, length and rounds of timings")

    model_config = ConfigDict(populate_by_name=True)

    @field_validator("model", "data")
    @classmethod
    def _without_last_slash(cls, value: str | None) -> str | None:
        """As completion of a folder's name leaves it: the same folder is the same recipe."""
        return value if value is None else value.rstrip("/") or value

    @field_validator("schema_version")
    @classmethod
    def _supported(cls, value: int) -> int:
        if value != SCHEMA:
            raise ValueError(f"recipe schema {value} is not readable by this version, which reads {SCHEMA}")
        return value

    @model_validator(mode="after")
    def _normalized_vectors(self) -> Recipe:
        if self.normalize and self.pooling is None:
            raise ValueError(
                "normalize goes with pooling: a folder of sentence-transformers says by itself which it is"
            )
        return self

    def plain(self) -> dict[str, Any]:
        """The recipe as JSON-able values."""
        return self.model_dump(mode="json", by_alias=True)

    @property
    def given_teachers(self) -> list[str]:
        """Folders and hub names of teachers, without the dense model of the run itself."""
        return []

    @property
    def given_files(self) -> list[str]:
        """Files, besides model and data, that decide what is made."""
        return []

    def extends(self, before: Recipe) -> bool:
        """Whether a run of `before` may go on as one of this recipe, which only asks for more."""
        return False

    @property
    def hash(self) -> str:
        """Twelve hex digits that change when any value changes but the name, which decides nothing."""
        decides = self.plain() | {"name": None}
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:12]
