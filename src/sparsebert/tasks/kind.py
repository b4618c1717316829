"""The kind of a task: all that `run`, `train`, `pruning` and reports do not know of labels, outputs, loss and metrics.

One file a kind, registered in `registry.py` under "task_kind"; a user's own is named `package.module:name`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sparsebert import registry
from sparsebert.errors import UserError

if TYPE_CHECKING:
    import torch

IGNORED = -100
"""The label of a token of which nothing is asked, as transformers has it."""
ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"] | None


@dataclass(frozen=True)
class TextColumn:
    """The label column of a CSV file, where all values are text; `delimiter` stands between the file's columns."""

    values: Sequence[str]
    file: str
    name: str
    delimiter: str

    @property
    def where(self) -> str:
        """The column in an error."""
        return f"{self.file}, column '{self.name}'"


@dataclass(frozen=True)
class ConstantAnswer:
    """The best answer that does not look at the text: `outputs` [outputs] give it, `said` is it in words.

    It is the answer to each of `axes` dimensions of the labels: 1 = to each text, 2 = to each of its words.
    """

    outputs: np.ndarray
    said: str
    axes: int = 1

    def everywhere(self, labels: np.ndarray) -> np.ndarray:
        """The outputs of a model that always gives it, for texts with these labels [texts, ...]."""
        return np.broadcast_to(self.outputs, (*labels.shape[: self.axes], *self.outputs.shape))


@dataclass(frozen=True)
class Passage:
    """A text that was read: where in it each of its tokens stands, the same place twice for one of no letters."""

    text: str
    offsets: Sequence[tuple[int, int]]


class TaskKind(ABC):
    """A kind of task. It holds at most a model's thresholds, so that it can be compared, copied and sent elsewhere.

    Below, `names` are the label names in the order of their numbers, empty where labels have none; `outputs` are the
    numbers of the model that its answers are made from, one row a text; `where` names a column in errors.
    """

    head: str
    """Key of the Auto class of transformers whose head the model has, as in `models.heads.AUTO`."""
    problem_type: ProblemType
    """What a saved configuration says. The head must train by the loss of this class that transformers takes for it."""
    metrics: tuple[str, ...]
    """Names of registered metrics for the user's own data, the main one first."""
    named: bool
    """Whether labels have names, which are then in the model's configuration too."""
    exclusive: bool
    """Whether just one label is right, and the largest output decides: the outputs are logits of a softmax.

    Then a number added to all of them changes nothing, and decisions fill a table of confusion.
    """
    num_outputs: int | None
    """How many outputs a model has; None = one for each name."""
    labelled: bool = True
    """Whether data have labels; else the outputs of the dense model are what others are to give, and their labels."""
    hides_tokens: bool = False
    """Whether labels are tokens of the texts themselves, which are hidden from the model; data have no others.

    Labels of a row are then as many whole numbers as it has tokens, IGNORED where a token is not hidden.
    """
    columns: tuple[str, ...] = ("text",)
    """The text columns of a file whose user names none."""
    texts: int | None = None
    """How many texts a row has; none = one or two."""
    together: int | None = None
    """Of which text the rows that share it belong together, so that they are held out together: 0 = the first."""
    by_word: bool = False
    """Whether labels are of the words of a text, and a model's outputs of its tokens [texts, tokens, outputs].

    The outputs of a word are those of its first token, and 0 where it has none. Labels of rows are lists of whole
    numbers; in an array [texts, words] they are filled up with IGNORED, and outputs [texts, words, outputs] with 0.
    """
    by_span: bool = False
    """Whether an answer is a part of the second text of a pair, which may come in several windows, a row each.

    Outputs of a model are those of its tokens [windows, tokens, 2], for starts and for ends. Those that are kept are
    [windows, 1 + pieces, 2]: of the first token, and of what the pieces of a window's text begin and end with (see
    tasks/answers.py), 0 where that is no token and behind the last one. Labels of rows are objects.
    """
    apart: bool = False
    """Whether a text is a pair of which each side is read on its own, so that a batch holds two rows for each."""
    kept: bool = True
    """Whether a teacher's outputs of all texts can be kept; else it runs along with its student."""

    has_thresholds: bool = False
    """Whether a label, or an answer, is given from a probability on that a model may have of its own."""

    @property
    def of_tokens(self) -> bool:
        """Whether a model's outputs are of the tokens of a text, so that it matters where these stand."""
        return self.by_word or self.by_span

    @property
    def by_model(self) -> bool:
        """Whether what the dense model says of a row is its label."""
        return not self.labelled and not self.hides_tokens

    def deciding_at(self, thresholds: Sequence[float]) -> TaskKind:
        """The kind as a model with `thresholds` [labels], probabilities, decides; none given = as it is."""
        return self

    def chosen_thresholds(self, outputs: np.ndarray, labels: np.ndarray) -> tuple[float, ...]:
        """Probabilities that suit outputs and labels of rows that were not trained on; none where nothing tells."""
        return ()

    def default_thresholds(self, labels: np.ndarray) -> tuple[float, ...]:
        """Those of a model for which there are no such rows, by the train labels; none = as the kind decides."""
        return ()

    def margins(self, outputs: np.ndarray) -> np.ndarray:
        """Outputs [texts, outputs] as metrics take them: by how much each lies above what decides."""
        return outputs

    def from_columns(self, columns: Mapping[str, Sequence[Any]], file: str) -> tuple[Sequence[Any], tuple[str, ...]]:
        """The labels of a file that has a column for each, and notes for the user. Raises UserError for other kinds."""
        raise UserError(
            "Only labels of kind multilabel stand in several columns",
            got=", ".join(columns),
            fix="name one label column",
        )

    @abstractmethod
    def from_text(self, column: TextColumn) -> tuple[Sequence[Any], tuple[str, ...]]:
        """The values of a CSV file as a file with types would have them, and notes for the user.

        Raises UserError for text that may mean one thing or another.
        """

    @abstractmethod
    def label_names(self, values: Sequence[Any], where: str) -> tuple[str, ...]:
        """Names of the labels in a column. Raises UserError for bad values, and where there is nothing to learn."""

    @abstractmethod
    def labels(self, values: Sequence[Any], names: tuple[str, ...], where: str) -> list[Any]:
        """Labels as a model trains on them: whole numbers, floats, or lists of floats, all of one length.

        The collator makes one tensor of them, int64 or float32 [texts] or [texts, numbers]. Raises UserError, which
        names the row, for a value that is missing or does not fit.
        """

    def strata(self, labels: np.ndarray) -> np.ndarray:
        """A whole number for each text [texts], else 0: of texts with the same number a like share is held out."""
        return np.zeros(len(labels), dtype=int)

    def recognises(self, num_labels: int | None, problem_type: str | None) -> bool:
        """Whether a saved model, whose class has this kind's head, was fine-tuned for this kind of task; else True."""
        return True

    @abstractmethod
    def outputs(self, output: Any) -> torch.Tensor:
        """Outputs [texts, outputs] of what a model of transformers gives for a batch."""

    def read(self, model: Any, inputs: Mapping[str, torch.Tensor], batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Outputs [texts, outputs] of a model for a batch, of which `inputs` is what the model takes."""
        return self.outputs(model(**inputs))

    def counted(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Of outputs of a batch, as of a model, those of which something is asked [answers, outputs].

        `labels` are the batch's.
        """
        return outputs

    @abstractmethod
    def loss(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The mean loss of a batch that training minimises, differentiable [].

        `labels` are a batch's, as the collator makes them.
        """

    @abstractmethod
    def mean_loss(self, outputs: np.ndarray, labels: np.ndarray) -> float:
        """The same loss of many texts at once, without gradients."""

    def scored(self, outputs: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """What the metrics take of the outputs and labels of many texts; `names` are those of labels."""
        return outputs, labels

    @abstractmethod
    def divergence(self, teacher: np.ndarray, student: np.ndarray) -> float:
        """How far one model's outputs are from another's, 0 where these say the same; a mean over texts."""

    @abstractmethod
    def distillation(self, student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
        """What a student is to minimise to answer as its teacher, differentiable []; both sides as `counted` has them.

        Where outputs become probabilities, both are first divided by `temperature`, and the loss is multiplied by its
        square, so that gradients stay as large (Hinton et al. 2015, arXiv:1503.02531, section 2).
        """

    @abstractmethod
    def constant(self, labels: np.ndarray, names: Sequence[str]) -> ConstantAnswer:
        """What to answer to any text, knowing only the train labels: a model must beat that to be worth anything."""

    def baseline(self, train: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> ConstantAnswer:
        """What a model is to beat on rows with these `labels`, by those of train rows; most kinds: `constant`."""
        return self.constant(train, names)

    @abstractmethod
    def answer(self, names: Sequence[str], outputs: np.ndarray, passage: Passage | None = None) -> dict[str, Any]:
        """What a model says of one text, from its `outputs` [outputs] in float64, as `predict` shows and writes it.

        Values are text, numbers, lists of text, or numbers by name under `probabilities` or `values`. Of words it is
        given the outputs of tokens [tokens, outputs] and the `passage`, and gives `spans`.
        """


def task_kind(name: str) -> TaskKind:
    """The kind of a registered name, or the user's own. Raises UserError for what is none."""
    found = registry.get("task_kind", name)
    if not isinstance(found, TaskKind):
        raise UserError(
            f"'{name}' is no task kind", got=type(found).__name__, allowed="an instance of a class made from TaskKind"
        )
    return found
