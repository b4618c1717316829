"""What does the harness cost? Time of a whole training by `fine_tune` over one by a bare Trainer, in turns.

    python benchmarks/trainer_overhead.py --steps 40 --batch 32 --length 64 --rounds 7

Both train copies of one model on the same random tokens, with the same optimiser, schedule, precision and number of
checkpoints. The harness also hashes the model and its checkpoint, so that a resume can trust them, looks after the
order of rows, and, in a variant of its own, scores held-out rows twice in a training.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainingArguments

from harness import Row, options_of, print_table, rows_of, with_threads, write
from sparsebert.cli.output import quiet_libraries
from sparsebert.counts import example_inputs
from sparsebert.environment import supports_bf16_training
from sparsebert.models.load import load_model
from sparsebert.models.source import resolve
from sparsebert.progress import silent
from sparsebert.recipe.schema import Evaluate, Training, When
from sparsebert.tasks.classification import CLASSIFICATION
from sparsebert.timing import Variant, interleave, torch_threads
from sparsebert.training.collate import PaddingCollator
from sparsebert.training.finetune import fine_tune
from sparsebert.training.watch import Watch

BARE = "bare Trainer"
COLLATE = PaddingCollator(0, 0)
HELD = 64


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    model = load_model(resolve(options.model), num_labels=2, kind="classification")
    rows = rows_for(model, options.batch * options.steps, options.length)
    with torch_threads(options.threads) as threads, quiet_libraries(), silent(), tempfile.TemporaryDirectory() as home:
        variants = [
            Variant(BARE, bare(model, rows, options, Path(home) / "bare")),
            Variant("fine_tune", ours(model, rows, options, Path(home) / "ours", None)),
            Variant("fine_tune, two evaluations", ours(model, rows, options, Path(home) / "watched", watch_of(rows))),
        ]
        samples = interleave(variants, options.rounds)
    rows_found = rows_of(
        {"batch": options.batch, "length": options.length, "steps": options.steps},
        samples,
        {variant.name: [BARE] for variant in variants[1:]},
    )
    print(f"{options.steps} steps of {options.batch} x {options.length}, {threads} threads, {options.rounds} rounds\n")
    print_costs(rows_found)
    write(options, rows_found, threads)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = with_threads(options_of(__doc__, steps=40, batch=32, length=64, rounds=7))
    parser.add_argument("--model", default="sentence-transformers/all-MiniLM-L6-v2")
    return parser.parse_args(argv)


def rows_for(model: PreTrainedModel, count: int, length: int) -> Dataset:
    """Random tokens, all of one length, so that every batch is as much work as the next."""
    tokens = example_inputs([model], count, length)["input_ids"].tolist()
    masks = [[1] * length] * count
    labels, lengths = [row % 2 for row in range(count)], [length] * count
    return Dataset.from_dict({"input_ids": tokens, "attention_mask": masks, "label": labels, "length": lengths})


def watch_of(rows: Dataset) -> Watch:
    """Two evaluations in a training, on a few of its rows."""
    half = Evaluate(every=When(percent=50), keep="last")
    return Watch(half, rows.select(range(min(HELD, len(rows)))), "held_out", CLASSIFICATION, ("0", "1"), ("accuracy",))


def bare(model: PreTrainedModel, rows: Dataset, options: argparse.Namespace, home: Path) -> Callable[[], None]:
    def train() -> None:
        arguments = TrainingArguments(
            output_dir=str(home),
            max_steps=options.steps,
            per_device_train_batch_size=options.batch,
            warmup_steps=0.06,
            weight_decay=0.01,
            save_steps=options.steps,
            logging_steps=options.steps,
            report_to=[],
            disable_tqdm=True,
            bf16=supports_bf16_training(),
            use_cpu=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
        )
        with torch.inference_mode(False), torch.enable_grad():
            given = {"train_dataset": rows, "data_collator": COLLATE}
            trainer = Trainer(copy.deepcopy(model), arguments, **given)
            trainer.remove_callback(PrinterCallback)
            trainer.train()

    return train


def ours(
    model: PreTrainedModel, rows: Dataset, options: argparse.Namespace, home: Path, watch: Watch | None
) -> Callable[[], None]:
    count = iter(range(10**9))
    training = Training(max_steps=options.steps, batch_size=options.batch, save_steps=options.steps)

    def train() -> None:
        with torch.inference_mode(False), torch.enable_grad():
            # A folder of its own, in which there is nothing to go on from.
            folder = home / str(next(count))
            fine_tune(copy.deepcopy(model), rows, COLLATE, training, folder, 0, "train", watch=watch)

    return train


def print_costs(rows: Sequence[Row]) -> None:
    """The time of a training over that of the bare Trainer in the same round."""
    lines = []
    for row in rows:
        found, cost = row["times"], ""
        if row["baseline"] is not None:
            least, middle, most = (1 / found[key] for key in ("speedup_q75", "speedup", "speedup_q25"))
            cost = f"{middle:.3f} ({least:.3f}–{most:.3f})"
        seconds = [found[key] / 1000 for key in ("median_ms", "q25_ms", "q75_ms")]
        lines.append([row["variant"], "{:.1f} ({:.1f}–{:.1f})".format(*seconds), cost])
    print_table(["training by", "s, median (quartiles)", f"over the {BARE}, median (quartiles)"], lines)


if __name__ == "__main__":
    main()
