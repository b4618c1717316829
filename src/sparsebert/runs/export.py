"""A model's programs in one folder, each checked against torch, and scored where there is data to score it on."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from transformers import PretrainedConfig

from sparsebert import registry
from sparsebert.data.batches import inputs_of, rows_of
from sparsebert.data.file_tokenizer import FILE
from sparsebert.deployment.exported import Exported, all_cores, file_reader
from sparsebert.deployment.manifest import Manifest, ProgramFile, write_manifest
from sparsebert.deployment.plain import label_names
from sparsebert.environment import environment
from sparsebert.errors import UserError
from sparsebert.files import digests, folder_beside
from sparsebert.models.companions import carry_over
from sparsebert.models.heads import foreign_head, saved_head
from sparsebert.models.limits import segment_types
from sparsebert.models.load import load_config
from sparsebert.models.named import carried_files
from sparsebert.models.source import resolve
from sparsebert.models.thresholds import thresholds_of
from sparsebert.recipe.base import Recipe
from sparsebert.runs.context import Predictions, RunContext
from sparsebert.runs.scoring import agreement
from sparsebert.runs.subject import BATCH, Subject, Wish, by_text, columns_of, packaged_texts, subject_of, torch_outputs
from sparsebert.runtimes.program import RuntimeUnavailableError, open_program
from sparsebert.runtimes.runtime import ready
from sparsebert.runtimes.sensitivity import sensitivities
from sparsebert.runtimes.whole import WholeProgram
from sparsebert.tasks.kind import task_kind

EXACT = 1e-4
# Tokens: so few that every text is cut.
SHORT = 12


def export(wish: Wish, say: Callable[[str], None] = lambda text: None) -> Manifest:
    """Make the folder, and give what it says of itself.

    A program in float32 must give what torch gives, up to EXACT of the largest output. Where there are several ways to
    make a program, the one that answers train rows most like torch is taken, and only that one is scored on the
    validation rows. `say` is told what is done.

    Raises UserError for a model, a runtime or data that do not do, and for a program that fails its check or loses more
    than `max_drop`; then nothing is left behind.
    """
    runtimes = [_runtime(name) for name in dict.fromkeys(wish.runtimes)]
    if wish.output.exists():
        raise UserError("The output folder exists already", got=wish.output, fix="choose another --output")
    if wish.kept and not any(one.precision == "int8" for one in runtimes):
        raise UserError("Only programs in int8 can keep matrices in float32", got=", ".join(wish.runtimes))
    source = resolve(wish.model)
    _check_head(load_config(source), wish.model)
    beside = carried_files(source.path)
    subject = subject_of(wish, source, calibrated=[one.name for one in runtimes if one.calibrated])
    dense = subject.context.predict(subject.model) if subject.context and subject.kind else None
    with folder_beside(wish.output) as place:
        folder = place / wish.output.name
        manifest = _begun(wish, subject, folder, dense)
        carry_over(source.path, beside, folder)
        kept = _most_sensitive(wish.kept, subject, say) if wish.kept else {}
        for runtime in runtimes:
            say(f"Making {runtime.name}")
            program = _program(runtime, subject, manifest, folder, dense, wish.max_drop, kept, say)
            manifest = manifest.model_copy(update={"programs": (*manifest.programs, program)})
        write_manifest(manifest, folder)
        os.replace(folder, wish.output)
    return manifest


def _runtime(name: str) -> WholeProgram:
    found = registry.get("runtime", name)
    if not isinstance(found, WholeProgram):
        raise UserError("This runtime has no programs to export", got=name, allowed=", ".join(exportable()))
    reason = found.unavailable()
    if reason is not None:
        raise RuntimeUnavailableError(name, reason)
    return found


def exportable() -> list[str]:
    """Names of the runtimes that have programs."""
    return [name for name in registry.names("runtime") if isinstance(registry.get("runtime", name), WholeProgram)]


def _check_head(config: PretrainedConfig, model: str) -> None:
    if saved_head(config) == "multitask":
        raise UserError(f"{model} has three heads", fix="take it apart with `sparsebert split`, and export one of them")
    head = foreign_head(config)
    if head is not None:
        raise UserError("A model with this head cannot be exported", got=head)


def _begun(wish: Wish, subject: Subject, folder: Path, dense: Predictions | None) -> Manifest:
    """The folder with configuration and tokenizer, and what is known before there is a program."""
    config, tokenizer = subject.model.config, subject.tokenizer
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if not (folder / FILE).is_file():
        raise UserError(
            "The tokenizer has no form that runs without transformers", got=type(tokenizer).__name__, fix=f"save {FILE}"
        )
    batch = inputs_of(subject.collate(rows_of(subject.checked, [0])))
    manifest = Manifest(
        model=wish.model,
        kind=subject.kind,
        labels=label_names(config) if subject.kind else (),
        thresholds=thresholds_of(config) or None,
        inputs=tuple(batch),
        max_length=subject.reader.limit,
        vocab_size=config.vocab_size,
        segments=segment_types(config),
        pad_token_id=subject.collate.token,
        pad_token_type_id=subject.collate.segment,
        environment=environment(),
        scores=subject.context.score(dense) if subject.context and dense else (),
        programs=(),
        notes=subject.context.notes if subject.context else (),
    )
    _check_reading(manifest, folder, subject)
    return manifest


def _check_reading(manifest: Manifest, folder: Path, subject: Subject) -> None:
    """Raises UserError where the tokenizer reads otherwise without transformers."""
    texts, name = packaged_texts(), type(subject.tokenizer).__name__
    for limit in (subject.reader.limit, min(subject.reader.limit, SHORT)):
        own, _ = file_reader(manifest, folder, limit).read(texts, texts[::-1])
        expected, _ = replace(subject.reader, limit=limit).read(texts, texts[::-1])
        if any(own[key] != expected[key] for key in expected):
            raise UserError(f"{FILE} alone reads texts otherwise than the tokenizer", got=name)


def _program(
    runtime: WholeProgram,
    subject: Subject,
    manifest: Manifest,
    folder: Path,
    dense: Predictions | None,
    max_drop: float | None,
    kept: dict[str, float],
    say: Callable[[str], None],
) -> ProgramFile:
    divergences, opened = _closest(runtime, subject, manifest, folder, tuple(kept))
    say(f"Checking {runtime.name}")
    outputs = by_text(subject.checked, opened.run, subject.kind)
    apart = float(np.abs(outputs - subject.expected).max())
    relative = apart / max(float(np.abs(subject.expected).max()), 1e-12)
    if runtime.precision == "fp32" and not relative <= EXACT:
        raise UserError(
            f"The program {runtime.name} does not compute the same model",
            got=f"outputs {relative:.1e} of the largest one apart",
            allowed=f"{EXACT:g}",
        )
    kind = None if subject.kind is None else task_kind(subject.kind).deciding_at(manifest.thresholds or ())
    alike = None if kind is None else agreement(kind.margins(outputs), kind.margins(subject.expected), kind)
    paths = _paths(runtime, folder)
    found = ProgramFile(
        runtime=runtime.name,
        engine=runtime.engine,
        precision=runtime.precision,
        file=runtime.file,
        files=digests(paths, folder),
        bytes_on_disk=sum(path.stat().st_size for path in paths),
        divergences=divergences,
        kept=kept if runtime.precision == "int8" else {},
        largest_difference=apart,
        relative_difference=relative,
        texts=len(outputs),
        agreement=alike,
    )
    if subject.context is None or dense is None:
        return found
    told = {split: _of_rows(opened, rows, subject.kind) for split, rows in subject.context.validations.items()}
    predictions = subject.context.margins(subject.model, told)
    _check_drop(runtime.name, subject.context, predictions, dense, max_drop)
    return found.model_copy(update={"scores": subject.context.score(predictions, dense)})


def _most_sensitive(count: int, subject: Subject, say: Callable[[str], None]) -> dict[str, float]:
    """The names of so many linear layers, and how far rounding each alone moves the answers to train rows."""
    judged, kind = subject.judged, subject.kind
    if judged is None or kind is None:
        raise UserError(
            "Train rows tell which matrices to keep in float32, and there are none", fix="give --task or --data"
        )
    # The model that is rounded has to be the one that answers, where `ready` gives a copy.
    model = ready(subject.model, torch.float32)
    expected = torch_outputs(model, subject.collate, judged, kind)
    found = sensitivities(
        model,
        lambda: torch_outputs(model, subject.collate, judged, kind),
        lambda answers: task_kind(kind).divergence(expected, answers),
        lambda done, of: say(f"Rounding each matrix alone: {done} of {of}"),
    )
    if count > len(found):
        raise UserError("The model has fewer matrices than --keep-fp32", got=count, allowed=f"at most {len(found)}")
    return dict(list(found.items())[:count])


def _closest(
    runtime: WholeProgram, subject: Subject, manifest: Manifest, folder: Path, kept: Sequence[str]
) -> tuple[dict[str, float], Exported]:
    """The program that is made in the way that answers most like torch, opened, and its file in its place."""
    inputs = inputs_of(subject.collate(rows_of(subject.checked, range(min(2, len(subject.checked["input_ids"]))))))
    batches = [inputs_of(subject.collate(rows_of(columns, [0]))) for columns in subject.calibration]
    reader = file_reader(manifest, folder)

    def make(way: str, home: Path) -> Exported:
        file = home / runtime.file
        file.parent.mkdir(parents=True, exist_ok=True)
        exact = file if runtime.precision != "int8" else folder.parent / f"exact-{runtime.name}" / file.name
        # One for all ways; and the program for bfloat16 is that of float32, whose digests are taken already.
        if not exact.exists():
            exact.parent.mkdir(parents=True, exist_ok=True)
            runtime.convert(subject.model, inputs, exact)
        if exact != file:
            runtime.quantise(exact, batches, file, way, kept)
        # Not yet of a known digest: it is taken once, of the program that is kept.
        opened = open_program(runtime.engine, file, all_cores(), runtime.precision)
        return Exported(manifest, opened, reader, BATCH)

    if len(runtime.ways) == 1 or subject.judged is None or subject.kind is None:
        return {}, make(runtime.ways[0], folder)
    expected = torch_outputs(subject.model, subject.collate, subject.judged, subject.kind)
    homes = {way: folder.parent / f"way-{place}" for place, way in enumerate(runtime.ways)}
    opened, far = {way: make(way, home) for way, home in homes.items()}, dict[str, float]()
    for way, program in opened.items():
        far[way] = task_kind(subject.kind).divergence(expected, by_text(subject.judged, program.run, subject.kind))
    best = min(far, key=far.__getitem__)
    for path in _paths(runtime, homes[best]):
        (folder / runtime.file).parent.mkdir(exist_ok=True)
        os.replace(path, folder / path.relative_to(homes[best]))
    return far, opened[best]


def _paths(runtime: WholeProgram, home: Path) -> list[Path]:
    """The files of a program; OpenVINO keeps weights beside it, in a file of the same name."""
    place = home / runtime.file
    return sorted(place.parent.glob(f"{place.stem}.*"))


def _of_rows(opened: Exported, rows: Dataset, kind: str | None) -> np.ndarray:
    return by_text(columns_of(rows, range(len(rows))), opened.run, kind)


def _check_drop(
    name: str, context: RunContext[Recipe], own: Predictions, dense: Predictions, max_drop: float | None
) -> None:
    values = context.main_value(own), context.main_value(dense)
    if max_drop is None or values[0] is None or values[1] is None:
        return
    drop = 100 * (values[1] - values[0])
    if drop > max_drop:
        raise UserError(
            f"The program {name} loses more than --max-drop",
            got=f"{drop:.2f} points of {context.spec.main_metric}",
            allowed=f"{max_drop:g}",
        )
