"""The README of a model's folder: what it is, how to load it, what it scores, and how that was measured."""

from __future__ import annotations

import re
import shlex

from sparsebert.errors import unknown
from sparsebert.records import LabelThresholds, ModelResult, Record, TrainingRun
from sparsebert.registry import OWN_FAMILIES, SHRUNK_PREFIX
from sparsebert.reports import values as v
from sparsebert.reports.details import Stretch, stretches
from sparsebert.reports.escape import in_markdown
from sparsebert.reports.families import Family, short_name
from sparsebert.reports.maps import tree_names
from sparsebert.reports.metadata import base_name, front_matter, is_hub_name, is_new, is_whole
from sparsebert.reports.methods import methods
from sparsebert.reports.render import as_markdown
from sparsebert.reports.rows import family_rows
from sparsebert.reports.tables import Cell, Section, Table, family_table
from sparsebert.reports.usage import (
    Loadable,
    asking,
    embeds,
    encoding,
    fills_masks,
    finds_answers,
    has_own_head,
    loading,
    needs_sparsebert,
    pipeline,
    remote_code,
)
from sparsebert.reports.verdict import sentence

_FOLDER = "path/to/this/folder"
_PACKED = "packed.safetensors"
_EVEN = 0.5
# Limits of models of which nothing was removed, and of the others.
_WHOLE = (
    "Scores hold for the split named above; on other data they may be lower.",
    "What the base model does wrong, this one may do too.",
)
_CUT = (
    "Scores hold for the split named above; on other data the model may have lost more than the table says.",
    "What the base model does wrong, this one does too, and pruning may have made rare cases worse than the mean.",
)


def model_card(record: Record, model_name: str, where: str = _FOLDER) -> str:
    """The text of README.md for one model of the record; `where` is the folder or hub name that its code loads.

    Raises UserError if the record holds no such model.
    """
    model = next((model for model in record.models if model.name == model_name), None)
    if model is None:
        raise unknown("model", model_name, [model.name for model in record.models])
    family = _family(record)
    parts = [
        front_matter(record, model),
        f"# {in_markdown(f'{family.label}: {model.name}')}",
        in_short(record, model),
        "## Use it\n\n" + how_to_load(model, where, alone=_stands_alone(model)),
        _labels(model),
        "## Results\n\n" + as_markdown(family_table([family], compact=True)),
        "## How each number was measured\n\n" + _methods(family),
        "## Shape\n\n" + _shape(model),
        f"## How it was made\n\n{_fence(record.command, 'sh')}\n\n{_made(record, model)}",
        "## Limits\n\n" + _limits(record, model),
        "## License\n\n" + _license(record),
    ]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _family(record: Record) -> Family:
    return Family(f"{short_name(base_name(record))} on {record.task}", (record,))


def in_short(record: Record, model: ModelResult) -> str:
    """The model in a few sentences: what it was made of, speed, score, size, and the three sparsities."""
    family = _family(record)
    row = next(row for row in family_rows([family]) if row.name == model.name)
    base = in_markdown(base_name(family.first))
    if is_new(family.first) and not model.sparsity.encoder_linear:
        return f"A masked language model of the size {base}, pretrained from new weights."
    if record.kind == "finetune":
        return f"{base}, fine-tuned on {in_markdown(record.task)}; its shape is what it was."
    if row.dense:
        return f"The dense model of a SparseBERT run: {base}, not pruned. The others of the run are compared to it."
    said = in_markdown(sentence(row, "dense"))
    removed = f"{v.fraction(model.sparsity.encoder_linear)} of the encoder's linear weights"
    whole = f"{v.fraction(model.sparsity.whole_model)} of all parameters"
    disk = f"{v.fraction(model.sparsity.bytes_on_disk)} of the bytes on disk"
    return f"{base}, made smaller: {said}.\n\nRemoved against dense: {removed}, {whole}, {disk}."


def how_to_load(model: Loadable, where: str, alone: bool) -> str:
    """The ways to load a model from `where`; `alone`: the file beside it does without this package."""
    if has_own_head(model):
        return f"Needs `pip install sparsebert` beside `transformers`.\n\n{_fence(loading(model, where), 'python')}"
    own = needs_sparsebert(model)
    shell = _fence(asking(where, finds_answers(model)), "sh")
    if embeds(model):
        needs = f"Needs {'`pip install sparsebert` beside' if own else 'only'} `sentence-transformers`."
        return "\n\n".join((needs, _fence(encoding(model, where), "python"), "On the command line:", shell))
    needs = "Needs `pip install sparsebert` beside `transformers`." if own else "Plain `transformers` is enough."
    logits = "Or with the logits in hand:"
    if finds_answers(model):
        needs = "With `pip install sparsebert` texts are read whole, in windows, and no answer is given where none is:"
        logits = f"Or by `transformers`{'' if own else ' alone'}, with the logits in hand of a text that fits at once:"
    parts = [needs, _fence(pipeline(model, where), "python"), logits, _fence(loading(model, where), "python")]
    if own and model.model_type not in OWN_FAMILIES:
        said = "without sparsebert, by" if alone else "without the import, which needs sparsebert too, by"
        parts += [f"Or {said} the code that lies beside the model:", _fence(remote_code(model, where), "python")]
    if fills_masks(model):
        shell = _fence(f'sparsebert predict {shlex.quote(where)} "A sentence." --loss', "sh")
    asked = ", a file with columns `question` and `context` or SQuAD's `.json`" if finds_answers(model) else ""
    parts += [f"On the command line{asked}:", shell]
    return "\n\n".join(parts)


def _stands_alone(model: ModelResult) -> bool:
    """Whether the file beside the model loads it: not trees, packed files, nor families that transformers lacks."""
    own_family = str(model.model_type).removeprefix(SHRUNK_PREFIX) in OWN_FAMILIES
    return not (own_family or model.trees or any(name.endswith(_PACKED) for name in model.files))


def _labels(model: ModelResult) -> str:
    if model.thresholds is not None:
        return _answer_threshold(model.thresholds) if finds_answers(model) else _thresholds(model.thresholds)
    if model.decisions is None:
        return ""
    rows = tuple((Cell(str(number)), Cell(name)) for number, name in enumerate(model.decisions.classes))
    return "## Labels\n\n" + as_markdown(Table("Labels", (Cell("Number"), Cell("Label")), (Section("", rows),)))


def _answer_threshold(found: LabelThresholds) -> str:
    (value,) = found.values.values()
    said = f"An answer is given where the probability that there is one is {value:.3f} or more; else there is none."
    # A record does not say whether the model came with one half, or had too few rows to choose another.
    chosen = "None was chosen." if found.rows is None and value == _EVEN else _chosen(found)
    return f"## Answers\n\n{said} {chosen}"


def _chosen(found: LabelThresholds) -> str:
    if found.rows is None:
        return "That came with the model."
    return f"Chosen on {found.rows:,} train rows that no training saw."


def _thresholds(found: LabelThresholds) -> str:
    """The labels, and from which probability on each is given."""
    rows = tuple(
        (Cell(str(number)), Cell(name), Cell(f"{value:.3f}"))
        for number, (name, value) in enumerate(found.values.items())
    )
    columns = (Cell("Number"), Cell("Label"), Cell("Given above"))
    said = f"A text has any number of labels: each whose probability is above its own threshold. {_chosen(found)}"
    return f"## Labels\n\n{said}\n\n{as_markdown(Table('Labels', columns, (Section('', rows),)))}"


def _license(record: Record) -> str:
    base = base_name(record)
    if is_new(record):
        return "This model began with new weights. The terms of the text that it was trained on may apply to it."
    where = f"see https://huggingface.co/{base}" if is_hub_name(base) else "see where it came from"
    return (
        f"This model comes from {in_markdown(base)}, so the license of that model applies to it: {where}. So may the "
        "terms of the data that it was trained on. SparseBERT adds no terms of its own."
    )


def _methods(family: Family) -> str:
    return "\n".join(f"- **{in_markdown(name)}**: {in_markdown(text)}" for name, text in methods(family))


def _shape(model: ModelResult) -> str:
    shape, trees = model.shape, tree_names(model)
    columns = (Cell("Layer"), Cell("Heads", f"of {shape.full_heads}"), Cell("Neurons", f"of {shape.full_neurons}"))
    rows = []
    for layer, (heads, neurons) in enumerate(zip(shape.heads, shape.neurons, strict=True)):
        small = "dropped" if layer in shape.dropped_layers else ""
        block = f"tree {trees[layer]}" if layer in trees else str(neurons)
        rows.append((Cell(str(layer + 1), small), Cell(str(heads)), Cell(block)))
    return as_markdown(Table("Shape", columns, (Section("", tuple(rows)),)))


def _made(record: Record, model: ModelResult) -> str:
    packages = record.environment.packages
    versions = ", ".join(f"{name} {packages[name]}" for name in sorted(packages))
    facts = [f"Recipe {record.recipe_hash}, seed {record.seed}, {record.created}.", f"Made with {versions}."]
    facts += [_trained(done) for done in stretches(record, model)]
    if model.output_difference is not None:
        facts.append(
            "Largest difference of an output, masked against shrunk, over the largest output: "
            f"{model.output_difference:.1e}."
        )
    return "\n".join(f"- {in_markdown(fact)}" for fact in facts)


def _trained(done: Stretch) -> str:
    run = done.run
    lead = f"Phase {done.phase}: trained" if done.phase else "Trained"
    teacher = f", taught by {done.teacher}" if done.teacher else ""
    loss = "" if run.final_loss is None else f"; final loss {run.final_loss:.4g}"
    epochs = f"{run.epochs:g} epochs of {run.examples:,} examples"
    return f"{lead} for {run.steps:,} steps ({epochs}) in {run.dtype}{teacher}{loss}.{_energy(run)}"


def _energy(run: TrainingRun) -> str:
    """Why there is none is said where it stands how each number was measured."""
    return "" if run.energy_kwh is None else f" It took {v.digits(run.energy_kwh)} kWh ({run.energy_source})."


def _limits(record: Record, model: ModelResult) -> str:
    # Models are timed on the CPU, also where a GPU trained them.
    limits = [
        f"Times hold for {record.environment.cpu} with the batch, length, precision and threads given above; "
        "elsewhere, measure again.",
        *(_WHOLE if is_whole(model) else _CUT),
    ]
    stored = model.stored
    if stored is not None and (stored.weights, stored.embeddings) != ("float32", "float32"):
        limits.append(
            f"In the file the layers' weights are in {stored.weights} and tables of embeddings in {stored.embeddings}, "
            "from which float32 is made again on load. The scores are of the model that loads."
        )
    left = model.vocabulary
    if left is not None:
        limits.append(
            f"{left.entries:,} of {left.before:,} entries of the tokenizer stay. Texts that need others are read in "
            f"smaller pieces: {left.texts_changed:,} of {left.texts:,} validation texts."
        )
    narrow = model.shape is not None and model.shape.hidden is not None
    if narrow:
        limits.append(f"Hidden states have {model.shape.hidden} of {model.shape.full_hidden} dimensions.")
    if left is None and not narrow and model.target_kind is not None:
        limits.append("Only the encoder's linear layers were cut: embeddings and vocabulary have the size they had.")
    return "\n".join(f"- {in_markdown(limit)}" for limit in limits)


def _fence(text: str, language: str) -> str:
    ticks = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{ticks}{language}\n{text}\n{ticks}"
