"""Runtimes that run a model as one program: made into a file on the CPU, and opened from there."""

from __future__ import annotations

import logging
import tempfile
import warnings
from abc import abstractmethod
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sparsebert.counts import ROWS_A_TEXT
from sparsebert.runtimes.program import Engine, ProgramPrecision, RuntimeUnavailableError, open_program
from sparsebert.runtimes.runtime import ModelInputs, Prepared, Runtime, attention_of, predicts_classes

DTYPES: dict[ProgramPrecision, str] = {"fp32": "float32", "bf16": "bfloat16", "int8": "int8"}


class WholeProgram(Runtime):
    """A runtime whose programs are files, for any number of texts of any length."""

    name: str
    engine: Engine
    precision: ProgramPrecision
    file: str
    """Where an exported folder has its program, as users of the engine know it."""

    @property
    def ways(self) -> tuple[str, ...]:
        """Ways to make a program of this precision, the usual one first: none knows beforehand which is closest."""
        return ("",)

    @abstractmethod
    def convert(self, model: PreTrainedModel, inputs: ModelInputs, file: Path) -> None:
        """Write the program in float32 of a model on the CPU, which gives its first output when called with `inputs`.

        Raises RuntimeUnavailableError for a model that cannot be made into one.
        """

    @abstractmethod
    def quantise(
        self, exact: Path, texts: Sequence[ModelInputs], file: Path, way: str, kept: Collection[str] = ()
    ) -> None:
        """Write a converted program again, with products of 8 bits.

        `texts` are batches that set the scales of its numbers, where any are. Linear layers of the names in `kept` stay
        in float32.
        """

    def write(self, model: PreTrainedModel, inputs: ModelInputs, texts: Sequence[ModelInputs], file: Path) -> None:
        """Write the program of a model at this precision, in the usual way."""
        if self.precision != "int8":
            self.convert(model, inputs, file)
            return
        with tempfile.TemporaryDirectory(prefix="sparsebert-") as folder:
            exact = Path(folder) / file.name
            self.convert(model, inputs, exact)
            self.quantise(exact, texts, file, self.ways[0])

    def prepare(self, model: PreTrainedModel, inputs: ModelInputs) -> Prepared:
        """Make the program, and open it with as many threads as torch has now; `inputs` set its scales.

        Raises RuntimeUnavailableError where this runtime cannot run here, for a model on a GPU, and for one that cannot
        be made into a program.
        """
        reason = self.unavailable()
        if reason is None and model.device.type != "cpu":
            reason = f"it runs on the CPU, and the model lies on {model.device.type}"
        if reason is not None:
            raise RuntimeUnavailableError(self.name, reason)
        with tempfile.TemporaryDirectory(prefix="sparsebert-") as folder:
            file = Path(folder) / Path(self.file).name
            self.write(model, inputs, [inputs], file)
            program = open_program(self.engine, file, torch.get_num_threads(), self.precision)

        def run(given: ModelInputs) -> Tensor:
            return torch.from_numpy(program.run({name: value.numpy() for name, value in given.items()}))

        return Prepared(
            run=run,
            dtype=DTYPES[self.precision],
            attention=attention_of(model),
            predicts=predicts_classes(model),
            module=None,
            any_shape=True,
        )


def rows_a_text(model: PreTrainedModel) -> int:
    """Of pairs that are read apart a batch has two rows for each."""
    return int(vars(model).get(ROWS_A_TEXT, 1))


def examples(model: PreTrainedModel, inputs: ModelInputs) -> dict[str, Tensor]:
    """`inputs` [rows, tokens], repeated where there is one text or token, which exporters take for a constant."""
    rows, length = inputs["input_ids"].shape
    wanted = torch.arange(max(rows, 2 * rows_a_text(model))) % rows, torch.arange(max(length, 2)) % length
    return {name: value[wanted[0]][:, wanted[1]] for name, value in inputs.items()}


@contextmanager
def quiet_exporters(*names: str) -> Iterator[None]:
    """Without the words of exporters on their own insides, and those of the named loggers."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
