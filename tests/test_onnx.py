"""Models with trees as ONNX: the ways are gathered, step by step, for any batch and length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sparsebert.models.accelerate import accelerate
from sparsebert.models.surgeon import convert_ffn
from tiny import NAMES, Logits, tiny_batch, tiny_model

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("family", "sizes"),
    [
        ("bert", {"num_hidden_layers": 1}),
        ("modernbert", {"num_hidden_layers": 2, "layer_types": ["full_attention", "sliding_attention"]}),
    ],
)
def test_an_exported_tree_gives_the_same(family: str, sizes: dict[str, Any], tmp_path: Path):
    torch.manual_seed(0)
    sparse = accelerate(convert_ffn(tiny_model(family, **sizes), depth=3, trees=2), tokens=8, worth=0).eval()
    batch, free = tiny_batch(), {0: "batch", 1: "length"}
    with torch.no_grad():
        given = tuple(batch[name] for name in NAMES)
        program = torch.onnx.export(
            Logits(sparse), given, dynamo=True, verbose=False, dynamic_shapes=dict.fromkeys(NAMES, free)
        )
    assert program is not None
    program.save(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    for other in (batch, tiny_batch(1, rows=5, length=9)):
        [found] = session.run(None, {name: other[name].numpy() for name in NAMES})
        with torch.no_grad():
            torch.testing.assert_close(torch.tensor(found), sparse(**other).logits, rtol=1e-4, atol=1e-5)
