"""bfloat16 weights as the tile kernels read them: sparse matrices, and trees of fast feedforward layers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from sparsebert.kernels.packed import SINGLE, WIDTH
from sparsebert.kernels.reference import levels_of

TILE = 16
# Of the blocks that single values are spread over.
SPREAD_HEIGHT = 32
# All nodes of so many levels below one are a dense product.
STAGE_LEVELS = 6


@dataclass(frozen=True)
class TiledMatrix:
    """What is left of a bfloat16 weight [outputs, inputs], in blocks of `height` outputs x 32 inputs.

    Row r of blocks has those from starts[r] to starts[r + 1]; block b begins at input 32 columns[b]. It is height / 16
    tiles [16, 16, 2] of pairs of inputs, then outputs, then the two of the pair, zero outside the matrix. height 32 or
    16: values [blocks, height / 16, 16, 16, 2]. height 0: blocks of 32, of which only what is not zero is there;
    values [kept] in the order of tiles, those of block b from begins[b] on, and bit 2 o + i of masks
    [blocks, 2, 16 pairs] for output o and input i of the pair. starts, columns, masks and begins are int32.
    """

    outputs: int
    inputs: int
    height: int
    values: torch.Tensor
    starts: torch.Tensor
    columns: torch.Tensor
    masks: torch.Tensor | None = None
    begins: torch.Tensor | None = None

    @property
    def block_height(self) -> int:
        """Outputs of a block, also of single values."""
        return self.height or SPREAD_HEIGHT


@torch.no_grad()
def tile_matrix(weight: torch.Tensor, height: int) -> TiledMatrix:
    """Everything of `weight` [outputs, inputs] that is not zero. `height` is 32 or 16, or 0 = single.

    Rounds to bfloat16 where the weight is of another type.
    """
    outputs, inputs = weight.shape
    blocks = to_tiles(weight.detach().to(torch.bfloat16), height or SPREAD_HEIGHT)
    present = (blocks != 0).flatten(2).any(dim=2)
    starts, columns = _starts(present.sum(dim=1)), present.nonzero()[:, 1].int()
    left = blocks[present]
    if height != SINGLE:
        return TiledMatrix(outputs, inputs, height, left, starts, columns)
    kept = left != 0
    begins = _starts(kept.flatten(1).sum(dim=1))[:-1].contiguous()
    return TiledMatrix(outputs, inputs, height, left[kept], starts, columns, _to_bits(kept), begins)


def untile_matrix(tiled: TiledMatrix) -> torch.Tensor:
    """The weight [outputs, inputs], bfloat16."""
    counts = tiled.starts.diff()
    row = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    across = -(-tiled.inputs // WIDTH)
    tiles = tiled.values.new_zeros(len(counts), across, tiled.block_height // TILE, TILE, TILE, 2)
    if tiled.masks is None:
        tiles[row, tiled.columns.long()] = tiled.values
    else:
        kept = _from_bits(tiled.masks)
        blocks = tiled.values.new_zeros(kept.shape)
        blocks[kept] = tiled.values
        tiles[row, tiled.columns.long()] = blocks
    matrix = tiles.permute(0, 2, 4, 1, 3, 5).reshape(-1, across * WIDTH)
    return matrix[: tiled.outputs, : tiled.inputs]


@dataclass(frozen=True)
class TiledTree:
    """The input and output rows [trees, nodes, hidden] of a fast feedforward layer, for use by stages.

    w_in and w_out [trees, values] hold, stage by stage and subtree by subtree, the tiles of blocks of 32 x 32: of the
    matrix [nodes of the subtree, hidden], and of its outputs turned round, [hidden, nodes].
    """

    trees: int
    nodes: int
    hidden: int
    w_in: torch.Tensor
    w_out: torch.Tensor


def stages_of(levels: int) -> list[int]:
    """Levels of each stage: as few stages as there can be, the first ones deeper by one if they cannot be equal."""
    count = -(-levels // STAGE_LEVELS)
    return [levels // count + (stage < levels % count) for stage in range(count)]


@torch.no_grad()
def tile_tree(w_in: torch.Tensor, w_out: torch.Tensor) -> TiledTree:
    """Both weights are bfloat16 [trees, nodes, hidden]."""
    trees, nodes, hidden = w_in.shape
    into = [to_tiles(part, WIDTH).view(trees, -1) for part in _subtrees(w_in)]
    out = [to_tiles(part.transpose(-1, -2), WIDTH).view(trees, -1) for part in _subtrees(w_out)]
    return TiledTree(trees, nodes, hidden, torch.cat(into, dim=1), torch.cat(out, dim=1))


def _subtrees(weight: torch.Tensor) -> list[torch.Tensor]:
    """The rows of each stage's subtrees [trees, subtrees, nodes of a subtree, hidden], in these level by level."""
    trees, nodes, hidden = weight.shape
    first, found = 0, []
    for deep in stages_of(levels_of(nodes)):
        levels = (weight[:, 2**level - 1 : 2 ** (level + 1) - 1] for level in range(first, first + deep))
        found.append(torch.cat([rows.reshape(trees, 2**first, -1, hidden) for rows in levels], dim=2))
        first += deep
    return found


def to_tiles(matrix: torch.Tensor, height: int) -> torch.Tensor:
    """[..., outputs, inputs] as tiles [..., rows of blocks, blocks across, height / 16, 16, 16, 2], zero outside."""
    *before, outputs, inputs = matrix.shape
    rows, across = -(-outputs // height), -(-inputs // WIDTH)
    whole = F.pad(matrix, (0, across * WIDTH - inputs, 0, rows * height - outputs))
    # Inputs go in pairs, since the instruction multiplies and adds two neighbours at a time.
    split = whole.reshape(*before, rows, height // TILE, TILE, across, WIDTH // 2, 2)
    n = len(before)
    return split.permute(*range(n), n, n + 3, n + 1, n + 4, n + 2, n + 5).contiguous()


def _to_bits(kept: torch.Tensor) -> torch.Tensor:
    """Of the last 16 x 2 places, as int32, whose highest bit is the sign."""
    return (kept.flatten(-2).long() << torch.arange(WIDTH, device=kept.device)).sum(dim=-1).int()


def _from_bits(masks: torch.Tensor) -> torch.Tensor:
    return (
        (masks[..., None] >> torch.arange(WIDTH, dtype=torch.int32, device=masks.device) & 1)
        .bool()
        .unflatten(-1, (TILE, 2))
    )


def _starts(counts: torch.Tensor) -> torch.Tensor:
    return F.pad(counts.cumsum(0), (1, 0)).int()
