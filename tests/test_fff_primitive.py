"""Layers by one primitive: each gives what the layer is by hand, and times of a part are scaled to the whole."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SIZES = ["--tokens", "32", "--hidden", "24", "--depth", "3", "--width", "20", "--pool", "64", "--part", "4"]
needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="needs a C++ compiler"
)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The benchmark, imported as when it is run."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("fff_primitive")


@needs_compiler
@pytest.mark.parametrize("type_name", ["fp32", "fp64"])
def test_every_primitive_gives_what_the_layers_are_by_hand(module: Any, type_name: str) -> None:
    dtype = module.TYPES[type_name]
    x = torch.randn(7, 24, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    options = module.arguments(SIZES)
    layers = module.random_weights(options, torch.Generator().manual_seed(0))
    made = module.primitives(module.loops())
    assert list(layers) == ["dense 15", "dense 20", "tree 1x3"]
    for layer in layers.values():
        rows_in, rows_out = layer.rows_in.double().numpy(), layer.rows_out.double().numpy()
        expected = np.zeros((7, 24))
        for y, token in zip(expected, x.numpy(), strict=True):
            node, path = 0, []
            while layer.levels and node < 15:
                path.append(node)
                node = 2 * node + 1 + int(rows_in[node] @ token > 0)
            for neuron in path or range(len(rows_in)):
                logit = rows_in[neuron] @ token
                y += logit * norm.cdf(logit) * rows_out[neuron]
        # The compiled form in fp32 is checked where all of the script runs, the package's kernel has no fp64.
        left_out = module.COMPILED if dtype == torch.float32 else module.BEST if layer.levels else None
        for name in set(made) - {left_out}:
            with torch.inference_mode():
                found = made[name](layer.to(dtype))(x.to(dtype))
            assert found.dtype == dtype and found.shape == (7, 24)
            within = module.WITHIN[dtype]
            np.testing.assert_allclose(found.double().numpy(), expected, rtol=within, atol=within / 10, err_msg=name)


@needs_compiler
def test_time_of_a_part_is_scaled_to_the_batch(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "interleave", lambda variants, rounds: {one.name: [2.0] * rounds for one in variants})
    options = module.arguments([*SIZES, "--primitives", module.LEVEL_2, "--rounds", "3"])
    rows = module.measured("fp64", options, module.primitives(module.loops()))
    by_pair = {
        (row["case"]["primitive"], row["variant"], row["baseline"]): row["times"]
        for row in rows
        if row["variant"] != "dense 20" and row["baseline"] in (None, "dense 15", "best dense 15")
    }
    # Four of 32 tokens took 2 ms.
    assert by_pair[module.LEVEL_2, "dense 15", None]["median_ms"] == 16.0
    assert by_pair[module.LEVEL_2, "tree 1x3", "dense 15"]["speedup"] == 8.0
    assert by_pair[module.LEVEL_2, "tree 1x3", "best dense 15"]["speedup"] == 1.0
    assert by_pair[module.BEST, "dense 15", None]["median_ms"] == 2.0 and len(by_pair) == 4


def test_fff_primitive_refuses_wrong_outputs_and_machines_without_a_compiler(
    module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = module.random_weights(module.arguments(SIZES), torch.Generator().manual_seed(0))
    x = torch.randn(3, 24, generator=torch.Generator().manual_seed(1))
    y = module.plain(layers["dense 15"])(x)
    module.check(y, x, layers["dense 15"], "mine")
    with pytest.raises(AssertionError, match="mine"):
        module.check(y + 0.001, x, layers["dense 15"], "mine")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="there is no C\\+\\+ compiler here"):
        module.main([*SIZES, "--output", str(tmp_path / "primitive.json")])
    assert not (tmp_path / "primitive.json").exists()
