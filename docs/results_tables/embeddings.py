"""Tables of models of embeddings: what the smaller ones find and how alike they are to the dense one."""

from __future__ import annotations

import json
from collections.abc import Mapping

from results_tables.values import RESULTS, percent, records, score, signed, table
from sparsebert.records import ModelResult
from sparsebert.runs.checked import CheckResult

STUDY = "embeddings-minilm"
_NAMES = {"2x": "2x", "4x": "4x", "4x-more": "4x, trained on"}


def family() -> str:
    """What was asked in the engine, the likeness to the dense vectors, and what was removed."""
    lines = [_member(model) for model in records(STUDY, "family")["family"].models[1:]]
    header = ["asked", "cosine, %", "ten neighbours kept, %", "encoder weights removed"]
    return table([*header, "of all parameters", "fewer bytes on disk"], lines)


def _member(model: ModelResult) -> list[str]:
    gone = model.sparsity
    likeness = [f"{score(model.scores, metric):.1f}" for metric in ("cosine", "neighbours")]
    parts = [percent(part) for part in (gone.encoder_linear, gone.whole_model, gone.bytes_on_disk)]
    return [f"{model.target_value:g}x", *likeness, *parts]


def quality() -> str:
    """Correlation on pairs and nDCG of a retrieval set, for each model alone and with what the dense one has stored."""
    lines = []
    for name, shown in _NAMES.items():
        found = {kind: _check(kind, name) for kind in ("pairs", "retrieval")}
        if not lines:
            lines.append(["dense", *(f"{100 * one.first[0].value:.1f}" for one in found.values() for _ in range(2))])
        lines.append([shown, *(cell for one in found.values() for cell in _both(one))])
    header = ["model", "STS-B: Spearman (change, 95 % interval)", "against dense vectors"]
    return table([*header, "QNLI: nDCG@10 (change, 95 % interval)", "queries alone"], lines)


def _both(found: CheckResult) -> list[str]:
    """The main metric of the smaller model alone, and of its queries with the vectors of the dense one."""
    dense = found.first[0].value
    cells = []
    for one in (found.second[0], found.mixed[0]):
        assert one.change_low is not None and one.change_high is not None
        apart = f"{signed(100 * one.change_low)} to {signed(100 * one.change_high)}"
        cells.append(f"{100 * one.value:.1f} ({signed(100 * (one.value - dense))}, {apart})")
    return cells


def _check(kind: str, name: str) -> CheckResult:
    file = RESULTS / STUDY / "records" / "checks" / f"{kind}-{name}.json"
    held: Mapping[str, object] = json.loads(file.read_text(encoding="utf-8"))
    return CheckResult.model_validate(held)
