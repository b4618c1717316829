"""How good is a model that only averages a vector a token? The floor that an encoder of as many bytes must beat.

    python benchmarks/static_floor.py --model runs/dense --task sst2 --data DIR --widths 384 128

A static embedding in the way of model2vec (Tulkens & van Dongen 2024): the mean of a text's token vectors, without
special tokens, and one linear layer. The vectors begin as the input embeddings of the dense fine-tuned model, rotated
to their first principal components, so that fewer of them keep the most; they are trained with the layer by the labels
and the dense model's answers, as cut models are. The entries are those that the train texts need. Vectors are stored in
8 bits with a scale for 64, and the model that is scored has them so. The rate is the best of several on a tenth of the
train rows, on which it is not trained then. Medians over seeds.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from torch import nn
from torch.nn import functional

from harness import options_of, print_table, with_task, write
from sparsebert.cli.output import quiet_libraries
from sparsebert.data.labels import labels_of
from sparsebert.models.rounding import from_codes, to_codes
from sparsebert.progress import tracked
from sparsebert.recipe.finetune import FinetuneRecipe
from sparsebert.runs.context import RunContext, set_up
from sparsebert.tasks.metrics import score
from sparsebert.training.evaluate import predict_logits

BATCH, TEMPERATURE = 256, 2.0
RATES = (1e-3, 3e-3, 1e-2, 3e-2)


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    recipe = FinetuneRecipe(model=options.model, task=options.task, data=options.data)
    with quiet_libraries():
        context = set_up(recipe, Path("unused"))
        dense = context.load(options.model)
        taught = predict_logits(dense, context.train, context.collate, kind=context.kind)
        known = np.unique(np.concatenate([np.asarray(row) for row in context.train["input_ids"]]))
        known = np.setdiff1d(known, context.tokenizer.all_special_ids)
        table = dense.get_input_embeddings().get_parameter("weight").detach()[torch.from_numpy(known)]
        rows = [found(context, table, known, taught, width, options) for width in options.widths]
    print_table(list(rows[0]), [[str(value) for value in row.values()] for row in rows])
    write(options, rows)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = with_task(options_of(__doc__, seeds=3, epochs=10))
    parser.add_argument("--model", required=True, help="folder of the dense fine-tuned model")
    parser.add_argument("--widths", type=int, nargs="+", default=[384, 128], help="lengths of the vectors")
    return parser.parse_args(argv)


class Average(nn.Module):
    """The mean of a text's vectors [entries, width] and a linear layer; an entry that is not known has no vector."""

    def __init__(self, table: torch.Tensor, outputs: int) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag.from_pretrained(table.clone(), freeze=False, mode="mean")
        self.layer = nn.Linear(table.shape[1], outputs)

    def forward(self, texts: Sequence[torch.Tensor]) -> torch.Tensor:
        """Entries of each text, to [texts, outputs]."""
        lengths = torch.tensor([0, *(len(text) for text in texts[:-1])])
        return self.layer(self.bag(torch.cat(list(texts)), lengths.cumsum(0)))


@dataclass(frozen=True)
class Rows:
    """Texts as entries, their labels [texts], and the dense model's outputs [texts, outputs]."""

    texts: Sequence[torch.Tensor]
    labels: torch.Tensor
    taught: torch.Tensor

    def chosen(self, places: torch.Tensor) -> Rows:
        """Those at these places."""
        return Rows([self.texts[place] for place in places.tolist()], self.labels[places], self.taught[places])


def found(
    context: RunContext,
    table: torch.Tensor,
    known: np.ndarray,
    taught: np.ndarray,
    width: int,
    options: argparse.Namespace,
) -> dict[str, object]:
    """One row: the scores of all seeds with vectors of this length."""
    held = context.validations[context.task.validation_name]
    train, validation = (entries(rows, known) for rows in (context.train, held))
    labels, metric = labels_of(context.train), context.spec.main_metric
    rows = Rows(train, torch.from_numpy(labels), torch.from_numpy(taught))
    first = start(table, width)

    def scored(rate: float, seed: int, seen: Rows, asked: Sequence[torch.Tensor], right: np.ndarray) -> float:
        model = trained(context, first, seen, rate, seed, options.epochs)
        with torch.no_grad():
            return score((metric,), model(asked).numpy(), right)[metric]

    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    apart, rest = order[: len(train) // 10], order[len(train) // 10 :]
    few = rows.chosen(apart)
    rate = max(RATES, key=lambda one: scored(one, 0, rows.chosen(rest), few.texts, few.labels.numpy()))
    scores = [scored(rate, seed, rows, validation, labels_of(held)) for seed in range(options.seeds)]
    codes = to_codes(first.flatten(), "int8").values()
    size = sum(part.numel() * part.element_size() for part in codes) + 4 * (width + 1) * taught.shape[1]
    return {
        "task": options.task,
        "entries": len(known),
        "width": width,
        "megabytes": round(size / 1e6, 2),
        "rate": rate,
        "seeds": options.seeds,
        metric: round(100 * statistics.median(scores), 1),
        "lowest": round(100 * min(scores), 1),
        "highest": round(100 * max(scores), 1),
    }


def start(table: torch.Tensor, width: int) -> torch.Tensor:
    """The table [entries, width] in its first principal components."""
    centred = table - table.mean(dim=0)
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    return centred @ directions[:width].T


def entries(rows: Dataset, known: np.ndarray) -> list[torch.Tensor]:
    """For each text the places of its tokens among those known."""
    texts = (np.asarray(row) for row in rows["input_ids"])
    return [torch.from_numpy(np.searchsorted(known, text[np.isin(text, known)])) for text in texts]


def trained(
    context: RunContext,
    table: torch.Tensor,
    rows: Rows,
    rate: float,
    seed: int,
    epochs: int,
) -> Average:
    """A model after so many passes, its vectors rounded to what is stored."""
    torch.manual_seed(seed)
    model = Average(table, rows.taught.shape[1])
    optimizer = torch.optim.Adam(model.parameters(), rate)
    steps = epochs * -(-len(rows.texts) // BATCH)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    for _ in tracked(range(epochs), f"Training at {rate:g}, seed {seed}"):
        for places in torch.randperm(len(rows.texts)).split(BATCH):
            batch = rows.chosen(places)
            logits = model(batch.texts)
            told = context.kind.distillation(logits, batch.taught, TEMPERATURE)
            loss = told + functional.cross_entropy(logits, batch.labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    weight = model.bag.weight.detach()
    model.bag.weight.data = from_codes(to_codes(weight.flatten(), "int8"), weight.numel(), "int8").view_as(weight)
    return model.eval()


if __name__ == "__main__":
    main()
