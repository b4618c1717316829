"""Whether a folder's weight files are whole, and fit the model that its configuration describes."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from sparsebert.errors import UserError
from sparsebert.models.config import AGAIN
from sparsebert.models.families import family_of
from sparsebert.models.layout import base_of
from sparsebert.models.pack import read_contents
from sparsebert.models.source import PACKED_FILE, has_weights, no_safetensors, weight_files

# A model so much larger than its files has other sizes than they: said before memory is taken for the difference.
_TIMES_LARGER, _ANYWAY = 4, 2**24
_WRAPPERS = (
    (r"module\.", "torch's DataParallel", "save model.module instead"),
    (r"_orig_mod\.", "torch.compile", "save the model that was compiled instead"),
    (r"(base_model\.model\.)|(.*\.lora_[AB]\.)|(.*\.base_layer\.)", "PEFT", "save model.merge_and_unload() instead"),
    (
        r".*\.weight_(orig|mask)",
        "torch.nn.utils.prune",
        "call prune.remove for each pruned module first",
    ),
    (r".*\.parametrizations\.", "torch.nn.utils.parametrize", "call remove_parametrizations for each module first"),
)


def check_files(folder: Path) -> int:
    """How many numbers the weight files hold. Raises UserError for one that is missing, damaged or cut short."""
    if not has_weights(folder):
        raise no_safetensors(str(folder), folder)
    return sum(_elements(folder / name) for name in weight_files(folder))


def check_size(model: PreTrainedModel, held: int, folder: Path) -> None:
    """Raise UserError for an encoder much larger than what the files hold. The model may be without values."""
    asked = sum(parameter.numel() for parameter in base_of(model).parameters())
    if asked > _TIMES_LARGER * held + _ANYWAY:
        raise UserError(
            f"The weights in {folder} do not fit its config.json: it asks for {asked:,} numbers",
            got=f"{held:,}",
            fix="give it the config.json that it was saved with",
        )


def check_report(model: PreTrainedModel, report: dict[str, Any], folder: Path, new_head: bool) -> None:
    """Raise UserError where transformers' loading report lacks tensors, or has ones of layers that the model lacks.

    `new_head`: the model is for other labels than the file.
    """
    absent = set(report["missing_keys"]) | {entry[0] for entry in report["mismatched_keys"]}
    if new_head or type(model).__name__ not in (model.config.architectures or ()):
        # Another task than the file was saved for: heads, and the pooler that belongs to them, may be new.
        prefix = "" if base_of(model) is model else f"{model.base_model_prefix}."
        pooler = f"{prefix}pooler."
        absent = {name for name in absent if name.startswith(prefix) and not name.startswith(pooler)}
    layers = re.escape(family_of(model.config).layers)
    own = re.compile(rf"({re.escape(model.base_model_prefix)}\.)?{layers}\.\d+\..*(weight|bias)")
    unused = [name for name in report["unexpected_keys"] if own.fullmatch(name)]
    if absent or unused:
        _refuse_wrapped(report["unexpected_keys"], folder)
    if unused:
        raise UserError(
            f"The layers in {folder} hold {len(unused)} tensors that a model of its config.json does not use",
            got=min(unused),
            fix="give it the config.json that it was saved with",
        )
    if absent:
        raise UserError(
            f"The weights in {folder} do not fit its config.json: {len(absent)} tensors missing or of another shape",
            got=min(absent),
            fix="download the folder again",
        )


def _refuse_wrapped(unexpected: list[str], folder: Path) -> None:
    for pattern, wrapper, fix in _WRAPPERS:
        found = sorted(name for name in unexpected if re.match(pattern, name))
        if found:
            raise UserError(f"The weights in {folder} were saved wrapped in {wrapper}", got=found[0], fix=fix)


def _elements(file: Path) -> int:
    if file.name == PACKED_FILE:
        return sum(math.prod(entry["shape"]) for entry in read_contents(file).values())
    try:
        with safe_open(file, framework="pt") as content:
            return sum(math.prod(content.get_slice(name).get_shape()) for name in content.keys())  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{file} is damaged or cut short: {error}", fix=AGAIN) from None
