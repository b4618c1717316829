"""What a SparseTrainer cannot do right is refused, or mended, before it trains."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparsebert.errors import UserError
from sparsebert.train.trainer import SparseTrainer
from test_trainer_script import ROWS, arguments, small, teacher_of
from tiny import tiny_model
from toy import toy_collate, toy_rows


def test_a_teacher_of_other_rows_or_labels_is_refused(tmp_path: Path):
    given = {"data_collator": toy_collate, "distiller": teacher_of(tmp_path)}
    with pytest.raises(UserError, match="asked about other training rows; got 48 rows, 32 of the teacher's"):
        SparseTrainer(small(), arguments(tmp_path), train_dataset=toy_rows(48), **given)
    with pytest.raises(UserError, match="different numbers of outputs; got 2 and 3"):
        SparseTrainer(tiny_model("bert"), arguments(tmp_path), train_dataset=ROWS, **given)
