"""A race of real models, each in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sparsebert.live import race as races
from sparsebert.live.bench import Errand
from sparsebert.live.catalogue import AskedModel
from sparsebert.live.pool import Side, WayToRun
from sparsebert.live.race import race
from sparsebert.live.texts import built_in, repeated
from sparsebert.models.layout import encoder_linear_names
from sparsebert.models.load import load_model, load_tokenizer, save_model
from tiny_run import save_tiny

pytestmark = pytest.mark.process


@torch.no_grad()
def with_zeros(home: Path) -> Path:
    """A model with nothing but zeros in its layers, which sparse kernels may run too."""
    model = load_model(save_tiny(home / "made"))
    for name in encoder_linear_names(model):
        model.get_parameter(name).zero_()
    save_model(model, load_tokenizer(home / "made"), home / "zeros")
    return home / "zeros"


def side(folder: Path) -> Side:
    return Side(AskedModel(str(folder), folder.name, str(folder)), WayToRun("auto", 1))


def test_it_goes_on_until_one_is_through_and_what_was_tried_before_holds_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []
    real = races._processes

    def counted(sides: Any, stack: Any) -> Any:
        started.append([one.model.name for one in sides])
        return real(sides, stack)

    monkeypatch.setattr(races, "_processes", counted)
    save_tiny(tmp_path / "pairs", "pair_classification", num_labels=2, num_hidden_layers=1)
    job = Errand("a race", lambda: 0.0)
    # A model that reads nothing but pairs gets each text beside the next one.
    race(job, (side(with_zeros(tmp_path)), side(tmp_path / "pairs")), repeated(built_in(), 100), 8, 4096)
    found = job.found
    assert found["over"] and found["total"] == 100 and max(one["done"] for one in found["sides"]) == 100
    assert all(one["rate"] > 0 and one["seconds"] > 0 and one["fits"] for one in found["sides"])
    assert found["sides"][0]["runtime"] in ("eager", "sparse") and found["sides"][1]["runtime"] == "eager"
    assert found["energy"].startswith("not measurable here: ") or found["sides"][0]["joules"] is not None
    # Two runtimes were tried with the first: it races in a process that has seen one.
    assert started == [["zeros", "pairs"], ["zeros"]]
