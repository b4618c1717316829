"""Peak memory of a model, in processes of its own: the model, and not what surrounds it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from sparsebert.errors import UserError
from sparsebert.measurement.memory import peak_memory
from tiny import HIDDEN, tiny_model

# 64 MB of weights in the encoder; importing the libraries takes more than 100 MB.
NEURONS = 64 * 2**20 // 4 // (2 * HIDDEN)


@pytest.mark.process
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_peak_memory_is_of_the_model_in_float32_and_not_of_the_libraries(dtype: torch.dtype, tmp_path: Path) -> None:
    tiny_model("bert", num_hidden_layers=1, intermediate_size=NEURONS).to(dtype).save_pretrained(tmp_path)
    found = peak_memory(tmp_path, 1, 8)
    assert found is not None and 62 < found < 100


@pytest.mark.process
def test_a_program_has_the_memory_of_its_file_and_not_of_its_making(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    tiny_model("bert", num_hidden_layers=1, intermediate_size=NEURONS).save_pretrained(tmp_path)
    # The one who makes it holds the model too, and a copy on the way to the file.
    found = peak_memory(tmp_path, 1, 8, "onnx")
    assert found is not None and 62 < found < 125


def test_memory_of_a_folder_without_weights_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No weights"):
        peak_memory(tmp_path, 1, 8)


def test_the_last_word_of_the_other_process_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho Traceback >&2\necho 'OSError: it broke' >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(UserError, match="measurement of memory lost its process: exit code 1: OSError: it broke"):
        peak_memory(tmp_path, 1, 8)
