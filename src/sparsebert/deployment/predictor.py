"""One predictor for every form of a model: a plain, shrunk or packed folder, a hub name, or an exported folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import numpy as np

from sparsebert.data.tokens import Reader, ReadTexts
from sparsebert.deployment.exported import file_reader, open_exported
from sparsebert.deployment.manifest import is_exported, read_manifest
from sparsebert.deployment.whole_texts import read_in_windows, read_whole
from sparsebert.errors import UserError
from sparsebert.files import home_of
from sparsebert.runtimes.program import RuntimeUnavailableError
from sparsebert.tasks.kind import Passage, TaskKind, task_kind

AUTO = "auto"
CHOICE_ROUNDS = 5
Input = str | Mapping[str, str]
RankedLabels = list[dict[str, Any]]


class Source(Protocol):
    """What gives outputs for texts."""

    @property
    def reader(self) -> Reader:
        """How texts are read."""
        ...

    def logits(
        self, first: Sequence[str], second: Sequence[str] | None, done: Callable[[int], None]
    ) -> Iterator[ReadTexts]:
        """Outputs of some texts at a time, in their order."""
        ...


@dataclass(frozen=True)
class Opened:
    """A model in one runtime, the context that sets its threads, and what makes it ready within some seconds."""

    source: Source
    threads: Callable[[], AbstractContextManager[object]] = nullcontext
    warm_up: Callable[[float], int] = lambda seconds: 0


@dataclass(frozen=True)
class Openers:
    """Runtimes that could run a model here, how each is opened, the model's task, and its longest text in tokens.

    `thresholds` are the probabilities from which on the model gives each label, none = as its kind does.
    """

    names: tuple[str, ...]
    kind_name: str
    labels: tuple[str, ...]
    limit: int
    open: Callable[[str], Opened]
    thresholds: tuple[float, ...] = ()


class Predictor:
    """A fine-tuned model that answers texts, as the transformers pipeline of its task does.

    `runtime` is a name of `sparsebert models`; `auto` takes the fastest that is there. In an exported folder these are
    its programs, and torch is not needed; of any other model `eager`, and `sparse` where it has zeros or trees. Texts
    of like length go together, `batch` at a time; longer ones than `max_length` tokens are cut, none = what the model
    was trained at. `threads` none = as many as the runtime takes by itself.

    Raises UserError for a model that is not fine-tuned for a task, a runtime that is not in the folder or not
    installed, and an exported folder whose files do not fit each other.
    """

    def __init__(
        self,
        model: str | Path,
        runtime: str = AUTO,
        *,
        max_length: int | None = None,
        batch: int = 32,
        threads: int | None = None,
    ) -> None:
        if batch < 1:
            raise UserError("A batch needs at least one text", got=batch)
        self._openers = _openers(str(model), runtime, max_length, batch, threads)
        self._batch = batch
        self.runtime: str | None = None
        """The runtime that answers; with `auto` none before the first texts have come."""
        self.measured_ms: dict[str, float] = {}
        """With `auto` and several runtimes: the median of a batch of the first texts in each."""
        if len(self._openers.names) == 1:
            self._choose(self._openers.names[0], self._openers.open(self._openers.names[0]))

    def __call__(self, texts: Input | Sequence[Input], *, top_k: int | None = 1) -> list[Any] | dict[str, Any]:
        """What a `text-classification` pipeline gives: for each text the label with the highest score.

        A text is a string, or a pair as `{"text": ..., "text_pair": ...}`. With another `top_k` than 1 each text has a
        list of so many labels, the highest first; none = all. A score is a probability, or the value that is predicted.
        Where a text has any number of labels, each also says whether it is `given`, by the model's thresholds.
        A model of embeddings gives `{"embedding": [...]}` in the place of a label, one that tags words `{"spans":
        [...]}`, and one that finds answers, to a question as `text` and where to look as `text_pair`, `{"answer":
        ..., "start": ..., "end": ..., "probability": ..., "answerable": ...}`.
        """
        several = [texts] if isinstance(texts, str | Mapping) else list(texts)
        first, second = _sides(several)
        found = [first_of(every, top_k) for every, _ in self.ranked(first, second)]
        # As the pipeline has it, whose answer to a single pair is no list, and to a single text one.
        return found[0] if isinstance(texts, Mapping) or (isinstance(texts, str) and top_k != 1) else found

    def ranked(self, first: Sequence[str], second: Sequence[str] | None = None) -> list[tuple[RankedLabels, bool]]:
        """For each text all labels, the highest score first, or its vector, spans or answer; and whether it was cut."""
        return [
            (_ranking(answer, self.labels), row in read.cut)
            for read, texts in self.read(first, second)
            for row, answer in enumerate(self._said(read, texts))
        ]

    def answers(
        self,
        first: Sequence[str],
        second: Sequence[str] | None = None,
        done: Callable[[int], None] = lambda count: None,
    ) -> Iterator[tuple[list[dict[str, Any]], int]]:
        """For some texts at a time, in their order, what is said of each, and how many were cut.

        An answer is what the kind of the task makes of a text's outputs: `label`, `probability` and `probabilities`, or
        `value`, `embedding`, `spans`, or `answer`. `done` is told how many texts are ready after each batch. Raises
        UserError for texts without tokens.
        """
        for read, texts in self.read(first, second, done):
            yield self._said(read, texts), len(read.cut)

    def outputs(
        self,
        first: Sequence[str],
        second: Sequence[str] | None = None,
        done: Callable[[int], None] = lambda count: None,
    ) -> np.ndarray:
        """The numbers that answers are made of, fp32 [texts, outputs]: logits, predicted values, or vectors.

        Raises UserError for a model that tags words or finds answers, of whose tokens texts have different numbers.
        """
        if self.kind.of_tokens:
            raise UserError("The model has no numbers for a whole text, but for its tokens", got=self.kind_name)
        found = [read.outputs for read, _ in self.read(first, second, done)]
        return np.concatenate(found) if found else np.zeros((0, len(self.labels)), dtype=np.float32)

    def read(
        self,
        first: Sequence[str],
        second: Sequence[str] | None = None,
        done: Callable[[int], None] = lambda count: None,
    ) -> Iterator[tuple[ReadTexts, Sequence[str]]]:
        """What answers are made of, for some texts at a time, in their order; and these texts. See `answers`.

        Of questions the texts are those that hold the answers.
        """
        if second is not None and self.kind.texts == 1:
            what = f"A model of kind {self.kind_name} reads single texts"
            raise UserError(what, got="pairs", fix="give each text by itself")
        if second is None and self.kind.by_span:
            fix = "give pairs: the question, and the text that holds the answer"
            raise UserError(f"A model of kind {self.kind_name} reads pairs", got="single texts", fix=fix)
        if first:
            self.choose(first, second)
            start, texts = 0, first if second is None or not self.kind.by_span else second
            with self._opened.threads():
                for read in self._reads(first, second, done):
                    yield read, texts[start : start + len(read.outputs)]
                    start += len(read.outputs)

    def _reads(
        self, first: Sequence[str], second: Sequence[str] | None, done: Callable[[int], None]
    ) -> Iterator[ReadTexts]:
        source = self._opened.source
        if self.kind.by_span and second is not None:
            return read_in_windows(source, first, second, done)
        return read_whole(source, first, done) if self.kind.by_word else source.logits(first, second, done)

    @property
    def kind(self) -> TaskKind:
        """The kind of the task, as the model decides."""
        return task_kind(self.kind_name).deciding_at(self._openers.thresholds)

    @property
    def kind_name(self) -> str:
        """Its name."""
        return self._openers.kind_name

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the outputs."""
        return self._openers.labels

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The model's own, one a label: the probability above which each is given; none = one half, or one label."""
        return self._openers.thresholds

    @property
    def max_length(self) -> int:
        """Tokens that are read of a text."""
        return self._openers.limit

    def choose(self, first: Sequence[str], second: Sequence[str] | None = None) -> None:
        """Take the fastest runtime for texts such as these, where none was named; later calls change nothing.

        All that can run are opened, and answer the first batch in turn, as often as CHOICE_ROUNDS.
        """
        if self.runtime is not None:
            return
        some = slice(0, self._batch)
        texts = first[some], None if second is None else second[some]
        ready: dict[str, Opened] = {}
        reasons: list[str] = []
        for name in self._openers.names:
            try:
                ready[name] = self._openers.open(name)
                _time(ready[name], *texts)
            except RuntimeUnavailableError as error:
                ready.pop(name, None)
                reasons.append(str(error))
        if not ready:
            raise UserError("No runtime can run the model here: " + " ".join(reasons))
        rounds = [{name: _time(opened, *texts) for name, opened in ready.items()} for _ in range(CHOICE_ROUNDS)]
        self.measured_ms = {name: median(one[name] for one in rounds) for name in ready}
        fastest = min(self.measured_ms, key=self.measured_ms.__getitem__)
        self._choose(fastest, ready[fastest])

    def warm_up(self, seconds: float) -> int:
        """Let a runtime that takes long over each new shape of a batch meet them, the smallest first.

        At most for some `seconds`; gives how many shapes it met, 0 where shapes do not matter or no runtime is chosen.
        """
        return 0 if self.runtime is None else self._opened.warm_up(seconds)

    def _choose(self, runtime: str, opened: Opened) -> None:
        self.runtime, self._opened = runtime, opened

    def _said(self, read: ReadTexts, texts: Sequence[str]) -> list[dict[str, Any]]:
        outputs = read.outputs.astype(np.float64)
        passages = [None] * len(texts) if read.offsets is None else map(Passage, texts, read.offsets)
        return [self.kind.answer(self.labels, *row) for row in zip(outputs, passages, strict=True)]


def _openers(model: str, runtime: str, max_length: int | None, batch: int, threads: int | None) -> Openers:
    folder = home_of(model)
    if is_exported(folder):
        return _of_exported(folder, runtime, max_length, batch, threads)
    from sparsebert.deployment.plain import open_plain

    return open_plain(model, runtime, max_length, batch, threads)


def check_model(model: str, runtime: str = AUTO, max_length: int | None = None) -> None:
    """Raises UserError for a model that a Predictor refuses by what its folder says; its weights are not looked at."""
    folder = home_of(model)
    if is_exported(folder):
        _of_exported(folder, runtime, max_length, 1, None)
        return
    from sparsebert.deployment.plain import check_plain

    check_plain(model, runtime, max_length)


def _of_exported(folder: Path, runtime: str, max_length: int | None, batch: int, threads: int | None) -> Openers:
    manifest = read_manifest(folder)
    programs = {program.runtime: program for program in manifest.programs}
    if runtime not in (AUTO, *programs):
        raise UserError("The exported folder has no such program", got=runtime, allowed=", ".join((AUTO, *programs)))
    if manifest.kind is None:
        raise UserError(f"{folder} is not fine-tuned for a task", fix="export a model that is")
    kind, reader = manifest.kind, file_reader(manifest, folder, max_length)

    def opened(name: str) -> Opened:
        source = open_exported(manifest, folder, programs[name], reader, batch, threads)
        return Opened(source, warm_up=source.warm_up)

    names = tuple(programs) if runtime == AUTO else (runtime,)
    return Openers(names, kind, manifest.labels, reader.limit, opened, manifest.thresholds or ())


def _time(opened: Opened, first: Sequence[str], second: Sequence[str] | None) -> float:
    """Milliseconds for some texts, tokenisation included."""
    start = time.perf_counter()
    with opened.threads():
        for _ in opened.source.logits(first, second, lambda count: None):
            pass
    return 1000 * (time.perf_counter() - start)


def _sides(texts: Sequence[Input]) -> tuple[list[str], list[str] | None]:
    """Single texts, or both sides of pairs. Raises UserError for a mixture and for other keys."""
    pairs = [one for one in texts if isinstance(one, Mapping)]
    for one in pairs:
        if set(one) != {"text", "text_pair"}:
            raise UserError("A pair is {'text': ..., 'text_pair': ...}", got=sorted(one))
    if pairs and len(pairs) < len(texts):
        raise UserError("Give single texts or pairs, not both")
    if pairs:
        return [one["text"] for one in pairs], [one["text_pair"] for one in pairs]
    single = [one for one in texts if isinstance(one, str)]
    if len(single) < len(texts):
        raise UserError("A text must be a string", got=next(one for one in texts if not isinstance(one, str)))
    return single, None


def first_of(every: RankedLabels, top_k: int | None) -> Any:
    """What a pipeline gives of a ranking: with a `top_k` of 1 the first label alone, else a list; none = all."""
    return every[0] if top_k == 1 else every[:top_k]


def _ranking(answer: Mapping[str, Any], labels: Sequence[str]) -> RankedLabels:
    if {"embedding", "spans", "answer"} & answer.keys():
        return [dict(answer)]
    values = answer.get("probabilities") or answer.get("values") or {labels[0]: answer["value"]}
    given = answer.get("labels")
    every: RankedLabels = [
        {"label": label, "score": score} | ({} if given is None else {"given": label in given})
        for label, score in values.items()
    ]
    return sorted(every, key=lambda one: one["score"], reverse=True)
