"""Numbers of 8 and 4 bits for the file: a code for each weight and scales, from which float32 is made again.

A weight is a level times the scale of its group, which are 64 weights that are stored one after the other. `int8` has
the levels -127.5, -126.5 … 127.5, and the largest weight of a group decides its scale; `int4` has the sixteen levels
that are best for normally distributed numbers (Max 1960, "Quantizing for minimum distortion", table I), and the scale
whose squared error is least of those that are tried. No level is zero: what was pruned is stored by its place, and no
other weight becomes zero. Scales are bfloat16.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sparsebert.recipe.storing import Weights

GROUP = 64
_LARGEST = 127.5
_POSITIVE = torch.tensor([0.1284, 0.3881, 0.6568, 0.9424, 1.256, 1.618, 2.069, 2.733])
_LEVELS = torch.cat([-_POSITIVE.flip(0), _POSITIVE])
_BETWEEN = (_LEVELS[1:] + _LEVELS[:-1]) / 2
# Of the scale at which the largest level is a group's largest weight. More of them gain another hundredth.
_TRIED = (1.0, 0.9, 0.8, 0.7)
_REFINED = 2
_GROUPS_AT_ONCE = 2**14


def to_codes(values: Tensor, how: Weights) -> dict[str, Tensor]:
    """Codes and scales of weights [weights] that are not zero.

    `values` are for int8 int8 [weights], level + 1/2 down, and for int4 uint8 [weights / 2, rounded up], the first of
    two in the lower bits; `scales` are bfloat16 [weights / 64, rounded up]. Raises ValueError for a weight that is not
    a finite float32.
    """
    exact = values.float()
    if not torch.isfinite(exact).all():
        raise ValueError("one is NaN, infinite or too large")
    groups = torch.nn.functional.pad(exact, (0, -len(exact) % GROUP)).reshape(-1, GROUP)
    rounded = [_bytes_of(part) if how == "int8" else _nibbles_of(part) for part in groups.split(_GROUPS_AT_ONCE)]
    codes = torch.cat([part for part, _ in rounded]).flatten()
    scales = torch.cat([part for _, part in rounded])
    if how == "int8":
        return {"values": codes[: len(exact)], "scales": scales}
    pairs = codes[: len(exact) + len(exact) % 2].reshape(-1, 2)
    return {"values": pairs[:, 0] | pairs[:, 1] << 4, "scales": scales}


def blank_codes(values: Tensor, how: Weights) -> dict[str, Tensor]:
    """As many codes and scales as of `to_codes`, all zero: for the size of a file, at once."""
    count, codes = len(values), torch.int8 if how == "int8" else torch.uint8
    return {
        "values": torch.zeros(count if how == "int8" else -(-count // 2), dtype=codes),
        "scales": torch.zeros(-(-count // GROUP), dtype=torch.bfloat16),
    }


def from_codes(parts: Mapping[str, Tensor], count: int, how: Weights) -> Tensor:
    """The `count` float32 weights that codes and scales stand for. Raises ValueError where they do not fit."""
    codes, scales, eight = parts["values"], parts["scales"], how == "int8"
    dtype, wanted, groups = torch.int8 if eight else torch.uint8, count if eight else -(-count // 2), -(-count // GROUP)
    if codes.dtype != dtype or codes.shape != (wanted,):
        raise ValueError(f"{codes.numel()} codes of {codes.dtype} for {count} weights in {how}")
    if scales.dtype != torch.bfloat16 or scales.shape != (groups,):
        raise ValueError(f"{scales.numel()} scales of {scales.dtype} for {groups} groups of weights")
    if not (torch.isfinite(scales) & (scales > 0)).all():
        raise ValueError("a scale is not a positive number")
    if eight:
        levels = codes.float() + 0.5
    else:
        levels = _LEVELS[torch.stack((codes & 15, codes >> 4), dim=1).flatten()[:count].int()]
    padded = torch.nn.functional.pad(levels, (0, -count % GROUP)).reshape(-1, GROUP)
    return (padded * scales.float()[:, None]).flatten()[:count]


def _bytes_of(groups: Tensor) -> tuple[Tensor, Tensor]:
    """Codes [groups, 64] and scales [groups]."""
    scales = _stored(groups.abs().amax(dim=1) / _LARGEST)
    codes = (groups / scales.float()[:, None]).floor().clamp(-128, 127)
    return codes.to(torch.int8), scales


def _nibbles_of(groups: Tensor) -> tuple[Tensor, Tensor]:
    """The same, of the least squared error among the scales that are tried."""
    largest = groups.abs().amax(dim=1) / _LEVELS[-1]
    best = _stored(largest)
    least = _error(groups, best)
    for part in _TRIED[1:]:
        best, least = _better(groups, _stored(largest * part), best, least)
    for _ in range(_REFINED):
        levels = _LEVELS[_nearest(groups, best).int()] * (groups != 0)
        # The scale that is best for these codes, by least squares.
        fitted = (groups * levels).sum(dim=1) / levels.square().sum(dim=1)
        best, least = _better(groups, _stored(fitted), best, least)
    return _nearest(groups, best), best


def _better(groups: Tensor, tried: Tensor, best: Tensor, least: Tensor) -> tuple[Tensor, Tensor]:
    error = _error(groups, tried)
    gains = error < least
    return torch.where(gains, tried, best), torch.where(gains, error, least)


def _error(groups: Tensor, scales: Tensor) -> Tensor:
    """Squared, in units in which no number is too small or large for that; none of the zeros that fill up a group."""
    unit = groups.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    made = _LEVELS[_nearest(groups, scales).int()] * (scales.float()[:, None] / unit)
    return ((made - groups / unit) * (groups != 0)).square().sum(dim=1)


def _nearest(groups: Tensor, scales: Tensor) -> Tensor:
    return torch.bucketize(groups / scales.float()[:, None], _BETWEEN, out_int32=True).to(torch.uint8)


def _stored(scales: Tensor) -> Tensor:
    """As the file has them, and none so small that a level times it would be zero."""
    return scales.clamp(torch.finfo(torch.bfloat16).tiny, torch.finfo(torch.bfloat16).max).to(torch.bfloat16)
