"""Checkpoints: only a whole and unharmed one of the same training is gone on from, else training starts anew, aloud."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from sparsebert.training.finetune import FineTuned
from test_sparse_training import rule, train
from test_stages import DAMAGES
from test_trainer import Interrupting, small


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training that has come as far as a checkpoint."""
    folder = tmp_path_factory.mktemp("interrupted")
    with pytest.raises(KeyboardInterrupt):
        train(small(), folder, [rule()], Interrupting(5))
    return folder


@pytest.fixture
def begun(interrupted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(interrupted, tmp_path / "begun"))


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> FineTuned:
    """The same training without a break."""
    return train(small(), tmp_path_factory.mktemp("fresh"), [rule()])


def assert_same(one: FineTuned, other: FineTuned) -> None:
    assert one.masks.keys() == other.masks.keys()
    assert all(torch.equal(mask, other.masks[name]) for name, mask in one.masks.items())
    assert one.log == other.log


def test_one_of_another_training_is_passed_over_aloud(begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    other = [rule(sparsity=0.6, criterion="random")]
    assert_same(train(small(), begun, other), train(small(), tmp_path / "fresh", other))
    assert "is of another training, so training starts before it" in capsys.readouterr().err


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.pt", "rng_state.pth", "trainer_state.json"])
def test_a_damaged_one_is_passed_over_aloud(
    file: str, how: str, begun: Path, fresh: FineTuned, capsys: pytest.CaptureFixture[str]
):
    DAMAGES[how](begun / "checkpoint-3" / file)
    assert_same(train(small(), begun, [rule()]), fresh)
    assert f"checkpoint-3 is damaged ({file}), so training starts before it" in capsys.readouterr().err


def test_one_that_was_not_finished_is_passed_over(begun: Path, fresh: FineTuned, capsys: pytest.CaptureFixture[str]):
    (begun / "checkpoint-3" / "whole.json").unlink()
    assert_same(train(small(), begun, [rule()]), fresh)
    assert "checkpoint-3 was not finished" in capsys.readouterr().err
