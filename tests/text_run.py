"""Text whose hidden words follow from their neighbours, so that a tiny model learns them in seconds."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

SUBJECTS = {"cat": "purrs", "dog": "barks", "cow": "moos", "duck": "quacks", "lion": "roars", "frog": "croaks"}
PLACES = ("house", "garden", "street", "forest", "kitchen", "school")
TRAINING = {"batch_size": 16, "save_steps": 4, "learning_rate": 1e-3}


def write_text(folder: Path, documents: int = 120, seed: int = 0) -> Path:
    """`animals.txt`: documents of a few sentences, a blank line between them."""
    draw = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    texts = []
    for _ in range(documents):
        chosen = [draw.choice(list(SUBJECTS)) for _ in range(draw.randint(3, 9))]
        texts.append("\n".join(f"The {one} in the {draw.choice(PLACES)} {SUBJECTS[one]} loudly ." for one in chosen))
    (folder / "animals.txt").write_text("\n\n".join(texts) + "\n", encoding="utf-8")
    return folder / "animals.txt"


def write_recipe(file: Path, text: Path, *phases: dict[str, Any], **more: Any) -> Path:
    """A recipe of `pretrain` from new weights, with its own vocabulary; phases without a training have the usual."""
    whole = {
        "schema": 1,
        "kind": "pretrain",
        "text": [str(text)],
        "config": "bert-tiny",
        "train_tokenizer": 120,
        "max_length": 16,
        "validation": 0.1,
        "phases": [{"name": "pretrain", "training": TRAINING | {"max_steps": 8}} | phase for phase in phases or ({},)],
        "measure": {"timed": False},
        **more,
    }
    file.write_text(json.dumps(whole), encoding="utf-8")
    return file
