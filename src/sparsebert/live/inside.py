"""What happens in a model of torch when it reads a text: tokens that mattered, attention of the heads that are left."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sparsebert.errors import UserError
from sparsebert.live.bench import Errand
from sparsebert.live.catalogue import AskedModel, need_torch
from sparsebert.live.latest import Latest
from sparsebert.live.pool import Side
from sparsebert.records import Shape

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from sparsebert.tasks.kind import TaskKind
    from sparsebert.training.inference import Inference

MOST_OPEN = 2
MOST_TOKENS = 128
"""Of a text, so that there is room on a page for each."""


@dataclass(frozen=True)
class OpenModel:
    """A model whose attention can be seen, how it reads texts, and what its outputs are called."""

    inference: Inference
    kind: TaskKind
    labels: tuple[str, ...]


@dataclass
class Microscope:
    """Opens models to look into, and keeps MOST_OPEN of them; used on one thread."""

    _open: Latest[OpenModel] = field(default_factory=lambda: Latest(MOST_OPEN))

    def look(self, job: Errand, sides: Sequence[Side], text: str, pair: str | None) -> None:
        """Report for each side its tokens, or the `problem` where it cannot be looked into."""
        told: list[dict[str, Any]] = []
        for side in sides:
            job.report({"line": f"Looking into {side.model.name} …", "sides": told})
            job.go_on()
            try:
                found = seen(self._opened(side.model), side.model.shape, text, pair)
            except UserError as error:
                found = {"problem": str(error)}
            told = [*told, {"name": side.model.name, **found}]
        job.report({"line": "", "sides": told})

    def _opened(self, model: AskedModel) -> OpenModel:
        if model.is_programs:
            raise UserError(f"{model.name} is exported: a program does not show what happens inside it")
        need_torch(model)
        return self._open.get(model.now, lambda: _open(model.place))


def _open(place: str) -> OpenModel:
    from sparsebert.deployment.plain import fine_tuned, inference_of, label_names
    from sparsebert.models.heads import saved_kind
    from sparsebert.tasks.kind import task_kind

    inference = inference_of(fine_tuned(place), MOST_TOKENS, "eager", 1)
    config = inference.model.config
    name = saved_kind(config)
    assert name is not None, "the model is for no known task"
    # Faster kernels do not keep the weights of attention.
    inference.model.set_attn_implementation("eager")
    inference.model.float()
    return OpenModel(inference, task_kind(name), label_names(config))


def seen(opened: OpenModel, shape: Shape | None, text: str, pair: str | None) -> dict[str, Any]:
    """The `tokens`, the label `said`, the `parts` of its output that tokens have, and `layers` of attention.

    Of classes that exclude each other the output is the logit of the largest less the mean of all logits: what is added
    to all of them changes no answer. A layer is its number from 1, the numbers of its heads from 1, and for each head
    what each token is paid.
    """
    import torch

    from sparsebert.data.batches import rows_of

    if opened.kind.by_span:
        raise UserError("The model finds answers: there is no one output that tokens could have a part in")
    if not opened.labels:
        raise UserError("The model gives vectors: there is no one output that tokens could have a part in")
    if opened.kind.by_word:
        raise UserError("The model tags words: there is no one output that tokens could have a part in")
    inference = opened.inference
    columns, cut = inference.reader.read([text], None if pair is None else [pair])
    batch = inference.collate(rows_of(columns, [0]))
    with torch.inference_mode():
        outputs = opened.kind.read(inference.model, _inputs(batch), batch)[0]
        maps = _attention(opened, batch)
    place = int(outputs.argmax()) if len(outputs) > 1 else 0
    mask = batch["attention_mask"].bool()
    parts = _parts(opened, batch, place)[mask]
    tokenizer: Any = inference.reader.tokenizer
    return {
        "tokens": tokenizer.convert_ids_to_tokens(batch["input_ids"][mask].tolist()),
        "said": opened.labels[place],
        "parts": [_short(part) for part in parts.tolist()],
        "cut": inference.reader.limit if cut else None,
        "layers": _layers(opened, maps, mask, shape),
    }


def _inputs(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in batch.items() if name != "labels"}


def _parts(opened: OpenModel, batch: Mapping[str, Tensor], place: int) -> Tensor:
    """Gradient times input of one output, by what the first layer is given for each token: [rows, tokens].

    Not by the rows of the table of tokens: where a normalisation comes right after it, as in ModernBERT, their length
    changes nothing, so that gradient times input is zero whatever the text (Euler's theorem).
    """
    from sparsebert.live.attribution import gradient_times_input
    from sparsebert.models.layout import layout_of

    model = opened.inference.model
    given: list[Tensor] = []
    first = model.get_submodule(layout_of(model).layers[0].path)

    def score(states: Tensor) -> Tensor:
        with _hooked(first, lambda module, inputs: (states, *inputs[1:])):
            outputs = opened.kind.read(model, _inputs(batch), batch)[0]
        return outputs[place] - outputs.mean() if opened.kind.exclusive else outputs[place]

    with _hooked(first, lambda module, inputs: given.append(inputs[0])):
        opened.kind.read(model, _inputs(batch), batch)
    return gradient_times_input(score, given[0])


@contextmanager
def _hooked(module: Module, hook: Callable[[Module, Any], Any]) -> Iterator[None]:
    """Inside the block `hook` sees what the module is given, and may put something else in its place."""
    handle = module.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _attention(opened: OpenModel, batch: Mapping[str, Tensor]) -> Sequence[Tensor]:
    """Of each layer [rows, heads, tokens, tokens]; none where the model's family does not tell."""
    return opened.inference.model(**_inputs(batch), output_attentions=True).attentions or ()


def _layers(opened: OpenModel, maps: Sequence[Tensor], mask: Tensor, shape: Shape | None) -> list[dict[str, Any]]:
    from sparsebert.live.attribution import received
    from sparsebert.models.layout import layout_of

    found = []
    for layer, attention in zip(layout_of(opened.inference.model).layers, maps, strict=False):
        paid = received(attention, mask)
        heads = [[_short(one) for one in paid[:, head][mask].tolist()] for head in range(paid.shape[1])]
        numbers = head_numbers(layer.original_index, len(heads), shape)
        found.append({"layer": layer.original_index + 1, "heads": numbers, "paid": heads})
    return found


def head_numbers(layer: int, count: int, shape: Shape | None) -> list[int]:
    """The numbers that heads had before others were pruned, from 1, where a record has them; else they are counted."""
    kept = shape.kept_heads[layer] if shape and layer < len(shape.kept_heads) else ()
    return [head + 1 for head in kept] if len(kept) == count else list(range(1, count + 1))


def _short(number: float) -> float:
    return float(f"{number:.4g}")
