"""The README of a repository, for folders that bring none: from the record of a run, else from the folder alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import yaml
from transformers import PretrainedConfig

from sparsebert.deployment.manifest import Manifest
from sparsebert.deployment.plain import label_names
from sparsebert.files import differing_files, home_of
from sparsebert.hub.folder import ModelFolder
from sparsebert.models.config import OWN_MODULE
from sparsebert.models.families import family_of, is_shrunk
from sparsebert.models.heads import saved_kind
from sparsebert.models.named import result_beside
from sparsebert.models.source import PACKED_FILE
from sparsebert.models.thresholds import thresholds_of
from sparsebert.records import ModelResult, Record
from sparsebert.registry import OWN_FAMILIES
from sparsebert.reports import model_card
from sparsebert.reports import values as v
from sparsebert.reports.card import how_to_load, in_short
from sparsebert.reports.escape import in_markdown
from sparsebert.reports.metadata import front_matter
from sparsebert.reports.usage import asking, fills_masks

# Of a score, measured twice on machines that add in another order.
ALIKE = 0.002
_NOTHING_MORE = "No record of a run lies beside this model, so base model, scores and speed are not known."


@dataclass(frozen=True)
class SavedModel:
    """What a configuration says of its class."""

    model_type: str | None
    architecture: str | None
    thresholds: tuple[float, ...] = ()


def model_card_of(folder: ModelFolder, made: tuple[Record, ModelResult] | None, repo: str) -> str:
    """The text of README.md: all that is known of the model, and how to load it from `repo`."""
    if made is not None:
        record, model = made
        return model_card(record, model.name, repo)
    if folder.manifest is not None:
        return _of_programs(folder.manifest, repo)
    assert folder.config is not None
    return _of_model(folder.config, repo, _stands_alone(folder, folder.config))


def _of_programs(manifest: Manifest, repo: str) -> str:
    """What was exported, checked and scored; of the model before that, what its run says, where it still lies there."""
    name = repo.rpartition("/")[2]
    source = home_of(manifest.model)
    made = result_beside(source) if source.is_dir() else None
    if made is not None and not _is_of(manifest, made[1], source):
        made = None
    front = front_matter(*made) if made else _front("text-classification")
    about = in_short(*made) if made else ""
    use = [f"sparsebert pull {repo}", asking(name, manifest.kind == "spans")] if manifest.kind else []
    parts = [
        front,
        f"# {in_markdown(name)}",
        "Programs of a BERT-family model for ONNX Runtime and OpenVINO, exported and checked by SparseBERT.",
        about,
        _labels(manifest.labels, manifest.thresholds or ()),
        f"## Programs\n\n{_programs(manifest)}",
        "## Use it\n\nNeeds `pip install sparsebert` and the engine of the program, neither torch nor transformers.",
        "\n".join(("```sh", *(use or [f"sparsebert pull {repo}"]), "```")),
    ]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _is_of(manifest: Manifest, model: ModelResult, source: Path) -> bool:
    """Whether the programs are of this model of the run, which may have been run anew since then."""
    if differing_files(model.files, source):
        return False
    measured = {(one.metric, one.split): one.value for one in model.scores}
    alike = [abs(measured.get((one.metric, one.split), one.value) - one.value) < ALIKE for one in manifest.scores]
    return all(alike)


def _programs(manifest: Manifest) -> str:
    metric = manifest.scores[0].metric if manifest.scores else None
    lines = ["| Program | MB | Apart from torch |", "|---|---|---|"]
    if metric:
        lines = [f"{lines[0]} {metric} |", f"{lines[1]}---|"]
    for one in manifest.programs:
        score = f" {v.fraction(one.scores[0].value)} |" if metric and one.scores else ""
        lines.append(f"| {one.runtime} | {one.bytes_on_disk / 1e6:.1f} | {one.relative_difference:.1e} |{score}")
    said = "Apart: the largest difference of an output from torch in float32, over the largest output."
    if metric:
        first = manifest.scores[0]
        said += f" Torch has {metric} {v.fraction(first.value)} on {first.examples:,} rows of {first.split}."
    return "\n".join(lines) + f"\n\n{said}"


def _stands_alone(folder: ModelFolder, config: PretrainedConfig) -> bool:
    """Whether the file beside the model is this version's, and loads it without the package."""
    packed = any(file.name == PACKED_FILE for file in folder.files)
    trees = is_shrunk(config) and any(config.layer_fff)
    name = f"{OWN_MODULE}.py"
    beside = folder.path / name
    same = beside.is_file() and beside.read_bytes() == resources.files("sparsebert.models").joinpath(name).read_bytes()
    return same and not (packed or trees or family_of(config).name in OWN_FAMILIES)


def _of_model(config: PretrainedConfig, repo: str, alone: bool) -> str:
    kind = saved_kind(config)
    # It is saved under the name of its encoder, which others know.
    name = "ForEmbeddings" if kind == "embeddings" else next(iter(config.architectures or ()), None)
    saved = SavedModel(config.model_type, name, thresholds_of(config))
    masked = fills_masks(saved)
    task = f", for {kind}" if kind else ""
    parts = [
        _front(_pipeline(kind, masked)),
        f"# {in_markdown(repo.rpartition('/')[2])}",
        f"A model of the family {family_of(config).name}{task}, saved by SparseBERT. {_NOTHING_MORE}",
        "## Use it\n\n" + (how_to_load(saved, repo, alone=alone) if kind or masked else _encoder(repo)),
        _labels(label_names(config) if kind and not masked else (), thresholds_of(config)),
        _shape(config),
    ]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _encoder(repo: str) -> str:
    return (
        "Needs `pip install sparsebert` beside `transformers`.\n\n```python\n"
        f"from sparsebert import load_model\n\nmodel = load_model({json.dumps(repo)})\n```"
    )


def _pipeline(kind: str | None, masked: bool) -> str:
    """What the hub calls the task."""
    known = {"embeddings": "sentence-similarity", "tokens": "token-classification", "spans": "question-answering"}
    if kind in known:
        return known[kind]
    return "fill-mask" if masked else "text-classification" if kind else "feature-extraction"


def _front(task: str) -> str:
    values = {"library_name": "transformers", "pipeline_tag": task, "license": "unknown", "tags": ["sparsebert"]}
    return f"---\n{yaml.safe_dump(values, sort_keys=False)}---"


def _labels(names: tuple[str, ...], thresholds: tuple[float, ...]) -> str:
    if thresholds and not names:
        return f"An answer is given from a probability of {thresholds[0]:g} on that there is one"
    if thresholds:
        values = json.dumps(dict(zip(names, thresholds, strict=True)), ensure_ascii=False)
        return f"Labels, each given above its own probability: {in_markdown(values)}"
    return f"Labels: {in_markdown(json.dumps(names, ensure_ascii=False))}" if names else ""


def _shape(config: PretrainedConfig) -> str:
    if not is_shrunk(config):
        return ""
    rows = [
        f"| {place + 1} | {heads} | {f'tree {tree[0]}x{tree[1]}' if tree else neurons} |"
        for place, heads, neurons, tree in zip(
            config.kept_layers, config.layer_heads, config.layer_neurons, config.layer_fff, strict=True
        )
    ]
    full = f"| Heads of {config.original_heads} | Neurons of {config.original_neurons} |"
    head = f"| Layer of {config.original_layers} {full}"
    return "\n".join(("## Shape\n", head, "|---|---|---|", *rows))
