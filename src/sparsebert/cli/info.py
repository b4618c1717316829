"""`sparsebert info`: what is in a folder. Shapes a layer, sparsities, and where the parameters are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparsebert.cli.errors import cli_errors
from sparsebert.cli.options import DebugOption, JsonOption

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sparsebert.fast_feedforward.layer import FastFeedForward
    from sparsebert.models.layout import Layout
    from sparsebert.records import ModelResult


def info(
    folder: Annotated[str, typer.Argument(help="A model's folder or hub name, or a run folder.")],
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show what is in a folder: shapes, sparsities, and where the parameters are."""
    with cli_errors(debug):
        from sparsebert.models.named import is_run

        if is_run(folder):
            _show_run(Path(folder).expanduser(), as_json)
        else:
            _show_model(folder, as_json)


def _show_model(name: str, json_wanted: bool) -> None:
    from sparsebert.cli.output import put_json, quiet_libraries
    from sparsebert.models.named import open_model
    from sparsebert.models.source import resolve

    with quiet_libraries():
        source = resolve(name)
        found = _describe(open_model(source), source.path)
    if json_wanted:
        put_json(found)
    else:
        _print(found)


def _show_run(folder: Path, json_wanted: bool) -> None:
    from sparsebert.cli.output import put_json, say, show
    from sparsebert.records import read_record
    from sparsebert.reports import as_json, as_rich, families, family_rows, family_table

    record = read_record(folder)
    groups = families([record])
    if json_wanted:
        put_json({"status": record.status, "models": as_json(family_rows(groups))})
        return
    if groups:
        show(as_rich(family_table(groups, compact=True)))
    if record.status == "failed":
        say(f"The run failed: {record.message}")
    say(f"Models: {', '.join(str(folder / model.folder) for model in record.models) or 'none'}")


def _describe(model: PreTrainedModel, folder: Path) -> dict[str, Any]:
    from sparsebert.fast_feedforward.convert import trees_of
    from sparsebert.models.layout import layout_of
    from sparsebert.models.source import disk_bytes

    layout = layout_of(model)
    made = _result_of(folder)
    found: dict[str, Any] = {
        "class": type(model).__name__,
        "family": layout.family.name,
        "dtype": str(model.dtype).removeprefix("torch."),
        "layers": _layers(layout, trees_of(model)),
        "full": {"layers": layout.full_layers, "heads": layout.full_heads, "neurons": layout.full_neurons},
        "hidden_size": {"left": model.config.hidden_size, "of": layout.full_hidden},
        "heads_together": layout.family.heads_together(model.config),
        "parameters": _parameters(model, layout),
        "bytes_on_disk": disk_bytes(folder),
    }
    if made is not None:
        found["sparsity"] = made.sparsity.model_dump()
        found["scores"] = [score.model_dump() for score in made.scores]
    return found


def _result_of(folder: Path) -> ModelResult | None:
    from sparsebert.models.named import record_beside

    record = record_beside(folder)
    models = record.models if record else ()
    return next((model for model in models if model.folder == folder.resolve().name), None)


def _layers(layout: Layout, trees: Mapping[int, FastFeedForward]) -> list[dict[str, int | str]]:
    return [
        {"layer": layer.original_index + 1}
        | {f"{kind}s": units for kind, units in layer.units.items()}
        | ({"tree": trees[layer.index].name} if layer.index in trees else {})
        for layer in layout.layers
    ]


def _parameters(model: PreTrainedModel, layout: Layout) -> dict[str, int]:
    """Where they are; a tied weight counts once, under the name that comes first."""
    from torch import nn

    from sparsebert.models.layout import encoder_linear_names

    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    linear = set(encoder_linear_names(model))
    parts = layout.family.attention
    attention = tuple(f".{part}.weight" for part in (*parts.inputs, parts.output))
    counts = dict.fromkeys(("embeddings", "attention", "feedforward", "biases and norms of layers", "head and rest"), 0)
    for name, parameter in model.named_parameters():
        place = "head and rest"
        if id(parameter) in embeddings:
            place = "embeddings"
        elif name in linear:
            place = "attention" if name.endswith(attention) else "feedforward"
        elif name.startswith(f"{layout.layer_list}."):
            place = "biases and norms of layers"
        counts[place] += parameter.numel()
    return {**counts, "all": sum(counts.values())}


def _print(found: dict[str, Any]) -> None:
    from sparsebert.cli.output import say, show, table
    from sparsebert.reports import values as v

    full = found["full"]
    say(f"{found['class']} ({found['family']}, {found['dtype']}), {v.megabytes(found['bytes_on_disk'] / 1e6)} on disk")
    together = found["heads_together"]
    heads = "Heads" if together == 1 else f"Groups of {together} heads,"
    shape = table("Layer", f"{heads} of {full['heads']}", f"Neurons of {full['neurons']}", right=(1, 2))
    for layer in found["layers"]:
        block = f"tree {layer['tree']}" if "tree" in layer else str(layer["neurons"])
        shape.add_row(str(layer["layer"]), str(layer["heads"]), block)
    show(shape)
    gone = full["layers"] - len(found["layers"])
    if gone:
        say(f"{gone} of {full['layers']} layers are gone.")
    hidden = found["hidden_size"]
    if hidden["left"] < hidden["of"]:
        say(f"Hidden states have {hidden['left']} of {hidden['of']} dimensions.")
    places = table("Parameters", "Number", "Part", right=(1, 2))
    for place, count in found["parameters"].items():
        places.add_row(place, f"{count:,}", v.fraction(count / found["parameters"]["all"]))
    show(places)
    if "sparsity" in found:
        sparsity = found["sparsity"]
        say(
            f"Removed against dense: {v.fraction(sparsity['encoder_linear'])} of the encoder's linear weights, "
            f"{v.fraction(sparsity['whole_model'])} of all, {v.fraction(sparsity['bytes_on_disk'])} of the bytes."
        )
    for score in found.get("scores", []):
        value = (
            f"{score['value']:.3f}" if score["metric"] in ("loss", "pseudo_perplexity") else v.fraction(score["value"])
        )
        say(f"{score['metric']} {value} on {score['examples']:,} examples of {score['split']}")
