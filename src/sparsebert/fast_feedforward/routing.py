"""Statistics of routing paths: which nodes tokens visit, how evenly, and whether neighbours take the same path."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class PathStatistics:
    """Statistics of the routing paths in one tree, over a stretch of text.

    visits: tokens by node [nodes]. dead: the part of nodes that no token visits. dead_subtrees: by the level of their
    root [levels], subtrees that no token enters, those inside a larger one left out. entropy: by level, of the visits,
    over that of an even spread [levels]; 1 = even, 0 = all at one node, and 1 at the root. agreement: by level, the
    part of neighbouring tokens at the same node [levels]; chance: the same for tokens that are not neighbours.
    """

    visits: torch.Tensor
    dead: float
    dead_subtrees: tuple[int, ...]
    entropy: tuple[float, ...]
    agreement: tuple[float, ...]
    chance: tuple[float, ...]


def path_statistics(paths: torch.Tensor, neighbours: torch.Tensor) -> PathStatistics:
    """Describe the paths [tokens, levels] of one tree.

    neighbours [tokens - 1]: True where token i and i + 1 are of one text.
    """
    levels = paths.shape[1]
    visits = torch.bincount(paths.flatten().long(), minlength=2**levels - 1)
    shares = [visits[2**level - 1 : 2 ** (level + 1) - 1].double() / len(paths) for level in range(levels)]
    same = (paths[1:] == paths[:-1])[neighbours].double()
    return PathStatistics(
        visits=visits,
        dead=float((visits == 0).double().mean()),
        dead_subtrees=_dead_subtrees(visits, levels),
        entropy=tuple(_evenness(share) for share in shares),
        agreement=tuple(same.mean(dim=0).tolist()) if len(same) else (),
        chance=tuple(float(share.square().sum()) for share in shares),
    )


def _dead_subtrees(visits: torch.Tensor, levels: int) -> tuple[int, ...]:
    dead = visits == 0
    parents = (torch.arange(len(visits)) - 1).clamp_min(0) // 2
    roots = dead & ~dead[parents]
    return tuple(int(roots[2**level - 1 : 2 ** (level + 1) - 1].sum()) for level in range(levels))


def _evenness(share: torch.Tensor) -> float:
    if len(share) == 1:
        return 1.0
    present = share[share > 0]
    entropy = -(present * present.log()).sum()
    return float(entropy / torch.tensor(len(share), dtype=torch.double).log())
