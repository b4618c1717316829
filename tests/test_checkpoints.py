"""Checkpoints: only a whole and unharmed one of the same training is gone on from, else training starts anew, aloud."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sparsebert.training.finetune import FineTuned
from test_sparse_training import rule, train
from test_stages import DAMAGES
from test_trainer import Interrupting, small


def interrupted(folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(small(), folder, [rule()], Interrupting(5))


def assert_same(one: FineTuned, other: FineTuned) -> None:
    assert one.masks.keys() == other.masks.keys()
    assert all(torch.equal(mask, other.masks[name]) for name, mask in one.masks.items())
    assert one.log == other.log


def test_one_of_another_training_is_passed_over_aloud(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    interrupted(tmp_path / "begun")
    other = [rule(sparsity=0.6, criterion="random")]
    assert_same(train(small(), tmp_path / "begun", other), train(small(), tmp_path / "fresh", other))
    assert "is of another training, so training starts before it" in capsys.readouterr().err


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.pt", "rng_state.pth", "trainer_state.json"])
def test_a_damaged_one_is_passed_over_aloud(file: str, how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    interrupted(tmp_path / "begun")
    DAMAGES[how](tmp_path / "begun" / "checkpoint-3" / file)
    assert_same(train(small(), tmp_path / "begun", [rule()]), train(small(), tmp_path / "fresh", [rule()]))
    assert f"checkpoint-3 is damaged ({file}), so training starts before it" in capsys.readouterr().err


def test_one_that_was_not_finished_is_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    interrupted(tmp_path / "begun")
    (tmp_path / "begun" / "checkpoint-3" / "whole.json").unlink()
    assert_same(train(small(), tmp_path / "begun", [rule()]), train(small(), tmp_path / "fresh", [rule()]))
    assert "checkpoint-3 was not finished" in capsys.readouterr().err
