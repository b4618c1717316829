"""Tables of the studies on pruning after training and on the forms of zeros."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from results_tables.values import (
    Row,
    main_score,
    ms,
    percent,
    ratio,
    records,
    rows,
    score,
    signed,
    spread,
    table,
    times,
)
from sparsebert.records import ModelResult, Record, Timing

SEEDS = (0, 1, 2)


def structured() -> str:
    """Each arm of `benchmarks/structured.py` at each target, over the seeds."""
    found = records("structured-sst2")
    first = found["obs-0"]
    dense = main_score(first, first.models[0])
    lines = [["dense", "", f"{dense:.1f}", "", "1", "0", ""]]
    for arm in ("obs", "magnitude", "layers"):
        runs = [found[f"{arm}-{seed}"] for seed in SEEDS]
        lines += [_member(arm, runs, place, dense) for place in range(1, len(runs[0].models))]
    asked = f"accuracy: median (min–max), n = {len(SEEDS)} seeds"
    speed, gone = "encoder speedup reached, by seed", "encoder weights removed"
    return table(["arm", "target", asked, "change", speed, gone, "before fine-tuning"], lines)


def _member(arm: str, runs: Sequence[Record], place: int, dense: float) -> list[str]:
    models = [record.models[place] for record in runs]
    scores = [main_score(record, model) for record, model in zip(runs, models, strict=True)]
    shots = [score(model.one_shot_scores, str(runs[0].main_metric)) for model in models]
    name = models[0].name
    return [
        arm,
        f"{name}: {_layers_kept(models[0])}" if arm == "layers" else name,
        spread(scores),
        signed(statistics.median(scores) - dense),
        ", ".join(f"{_encoder(model).speedup:.2f}" for model in models),
        f"{statistics.median(model.sparsity.encoder_linear for model in models):.2f}",
        f"{statistics.median(shots):.1f}",
    ]


def _layers_kept(model: ModelResult) -> str:
    left = [heads + neurons > 0 for heads, neurons in zip(model.shape.heads, model.shape.neurons, strict=True)]
    return f"keeps {sum(left)} of {len(left)}"


def structured_sizes() -> str:
    """Speed of the whole model and bytes on disk, for the same families: medians over the seeds."""
    found, lines = records("structured-sst2"), []
    for arm in ("obs", "magnitude", "layers"):
        runs = [found[f"{arm}-{seed}"] for seed in SEEDS]
        for place in range(1, len(runs[0].models)):
            models = [record.models[place] for record in runs]
            speed = [_of(model, "model").speedup or 1.0 for model in models]
            disk = statistics.median(model.sparsity.bytes_on_disk for model in models)
            lines.append([arm, models[0].name, spread(speed, 2), percent(disk)])
    return table(["arm", "target", "speedup of the whole model: median (min–max)", "fewer bytes on disk"], lines)


def _of(model: ModelResult, scope: str) -> Timing:
    return next(one for one in model.timings if one.scope == scope)


def _encoder(model: ModelResult) -> Timing:
    return _of(model, "encoder")


def settings() -> str:
    """The family made for one setting, measured at four."""
    found = rows("settings-sst2", "bench")
    shapes = list(dict.fromkeys((row["batch"], row["length"]) for row in found))
    lines = []
    for name in dict.fromkeys(row["model"] for row in found):
        encoders = {(row["batch"], row["length"]): _named(row, "encoder") for row in found if row["model"] == name}
        cells = [ms(encoders[shape]) if name == "dense" else ratio(encoders[shape]) for shape in shapes]
        lines.append(["dense, encoder ms" if name == "dense" else name, *cells])
    return table(["model", *(f"{batch} x {length}" for batch, length in shapes)], lines)


def _named(row: Row, scope: str) -> dict[str, float]:
    return next(one for one in row["timings"] if one["scope"] == scope)


TARGETS = {"1x25": "batch 1, 25 tokens", "32x128": "batch 32, 128 tokens", "32x25": "batch 32, 25 tokens"}


def settings_targets() -> str:
    """Families made for a setting of their own, without fine-tuning."""
    found = {what: records("settings-sst2", name)[name] for name, what in TARGETS.items()}
    lines = []
    for what, record in found.items():
        members = record.models[1:]
        speeds = [ratio(_encoder(model).model_dump()) for model in members]
        lines.append([what, *speeds, ", ".join(f"{main_score(record, model):.1f}" for model in members)])
    return table(["setting", "2x", "4x", "8x", "accuracy without fine-tuning"], lines)


def one_shot(task: str) -> str:
    """Every criterion at the same shapes, without fine-tuning."""
    found = rows("one-shot", task)
    levels = sorted({row["sparsity"] for row in found if row["sparsity"]})
    lines = [
        [criterion, *(spread(_scores(found, criterion, level)) for level in levels)]
        for criterion in ("obs", "gradient", "activation", "magnitude", "random")
    ]
    dense = [f"{_scores(found, 'dense', 0.0)[0]:.1f}"] * len(levels)
    heads = [f"{percent(level) if level != 0.875 else '87.5 %'} of encoder weights removed" for level in levels]
    return table(["criterion", *heads], [["dense", *dense], *lines])


def _scores(found: Sequence[Row], criterion: str, level: float) -> list[float]:
    chosen = [row for row in found if (row["criterion"], row["sparsity"]) == (criterion, level)]
    return [100 * row["scores"][row["metric"]] for row in chosen]


FORMS = (
    ("blocks", "dense, by own attention", "none, by the native attention"),
    ("blocks", "heads and neurons obs 2x, by torch", "heads and neurons, `obs` 2x"),
    ("blocks", "heads and neurons obs 4x, by torch", "heads and neurons, `obs` 4x"),
    ("blocks", "heads and neurons obs 8x, by torch", "heads and neurons, `obs` 8x"),
    ("blocks", "blocks fisher 80%, by torch", "32 x 32 blocks, fisher, 80 %, by PyTorch"),
    ("blocks", "blocks fisher 80%, by kernels", "32 x 32 blocks, fisher, 80 %, by the kernels"),
    ("single-values", "single fisher 80%, by kernels", "single values, fisher, 80 %, by the kernels"),
    (
        "single-values",
        "blocks fisher 80%, one budget for all matrices, by torch",
        "32 x 32 blocks, fisher, one budget for all matrices, by PyTorch",
    ),
)


def forms() -> str:
    """Which zeros buy the most speed."""
    record = records("structured-sst2")["obs-0"]
    dense = main_score(record, record.models[0])
    lines = []
    for file, variant, name in FORMS:
        found = rows("forms", file)
        row = next(one for one in found if one["variant"] == variant)
        accuracy = f"{row['score'][1]:.1f}" if "score" in row else f"{dense:.1f}"
        gone = ", ".join(percent(part) for part in row["sparsity"]) if "sparsity" in row else ""
        speeds = [ratio(times(found, variant, "dense, by torch", batch=batch)) for batch in (1, 8)]
        lines.append([name, accuracy, gone, *speeds])
    return table(["zeros", "accuracy", "of the encoder's weights, the model's, bytes", "batch 1", "batch 8"], lines)


def fff_sst2() -> str:
    """Trees in place of feedforward blocks, and the controls."""
    short, longer = (records("fff-sst2", name)[name] for name in ("trees", "trees-longer"))
    named = {
        "dense": "dense",
        "fff-1x10": "1x10 trees, taught on 1,024 examples for 1,000 steps",
        "dense-11": "11 dense neurons a block",
        "no-ffn": "no feedforward blocks",
    }
    lines = [_tree_line(short, model, named[model.name]) for model in short.models]
    again = "1x10 trees, taught on 8,000 examples for 2,000 steps, `balance` 0.01 in the teaching"
    lines.insert(2, _tree_line(longer, longer.models[1], again))
    return table(["model", "accuracy before training", "after", "encoder weights against dense"], lines)


def _tree_line(record: Record, model: ModelResult, name: str) -> list[str]:
    before = [f"{score(model.one_shot_scores, 'accuracy'):.1f}" if model.one_shot_scores else ""]
    return [name, *before, f"{main_score(record, model):.1f}", f"{1 - model.sparsity.encoder_linear:.2f}"]


def fff_sst2_trees() -> str:
    """How near the trees come to their blocks, and how much of them is never visited: the range over layers."""
    lines = []
    for name in ("trees", "trees-longer"):
        fits = records("fff-sst2", name)[name].models[1].trees
        cells = [_range([getattr(fit, key) for fit in fits]) for key in ("error", "dead")]
        lines.append([name, *cells])
    return table(["record", "error, of the variance of held-out tokens", "nodes that no token visits"], lines)


def _range(values: Sequence[float]) -> str:
    return f"{100 * min(values):.0f}–{100 * max(values):.0f} %"
