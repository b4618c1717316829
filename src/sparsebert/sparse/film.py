"""How masks move while a model is trained: coarse pictures of them now and then, and what went and came back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from sparsebert.records.film import PICTURE, PRUNED, RETURNED, STEPS, WENT
from sparsebert.sparse.coarse import coarse
from sparsebert.sparse.sites import Masks
from sparsebert.sparse.views import State, part_of

MOST_FRAMES = 41
CELLS = 12
"""Of a picture, each way."""
LEVELS = 255
_CALLS, _BEFORE = "calls", "before/"


def steps_apart(total: int) -> int:
    """How many steps apart a training of `total` steps is looked at."""
    return max(1, min(50, total // (MOST_FRAMES - 1)))


@dataclass
class Frame:
    """The masks after a step: by matrix shares of zeros [rows, columns] in LEVELS steps, and parts of all the weights.

    `pruned` is the part that is. `went` and `returned` are what was pruned, or back, and otherwise at the look before;
    where frames were left out, the sums of theirs too.
    """

    step: int
    pruned: float
    went: float
    returned: float
    pictures: dict[str, np.ndarray]


@dataclass
class MaskFilm:
    """Takes a frame at each call of `look`; of MOST_FRAMES it keeps every second one, and then takes half as many."""

    frames: list[Frame] = field(default_factory=list)
    _apart: int = 1
    _calls: int = 0
    _before: dict[str, np.ndarray] = field(default_factory=dict)

    def look(self, step: int, masks: Callable[[], Masks]) -> None:
        """After so many steps, where it is time for a frame; `masks` gives those of matrices, True = keep."""
        self._calls += 1
        if (self._calls - 1) % self._apart:
            return
        self._take(step, masks())
        if len(self.frames) == MOST_FRAMES:
            self._halve()

    def end(self, step: int, masks: Masks) -> None:
        """The last frame, of the masks as they stay; it replaces one of the same step."""
        moved = (0.0, 0.0)
        if self.frames and self.frames[-1].step == step:
            last = self.frames.pop()
            moved = (last.went, last.returned)
        self._take(step, masks, moved)

    def go_on(self, state: State, masks: Masks) -> None:
        """Take up the frames of a saved state, for masks of the same shapes."""
        pictures = part_of(state, PICTURE)
        columns = (state[name].tolist() for name in (STEPS, PRUNED, WENT, RETURNED))
        self.frames = [
            Frame(step, pruned, went, returned, {name: found[place].numpy() for name, found in pictures.items()})
            for place, (step, pruned, went, returned) in enumerate(zip(*columns, strict=True))
        ]
        self._apart, self._calls = (int(one) for one in state[_CALLS])
        self._before = {
            name: np.unpackbits(bits.numpy(), count=masks[name].numel()).astype(bool).reshape(masks[name].shape)
            for name, bits in part_of(state, _BEFORE).items()
        }

    def tensors(self) -> State:
        """The frames: STEPS, PRUNED, WENT, RETURNED [frames], and `picture/NAME` [frames, rows, columns]."""
        names = self.frames[0].pictures if self.frames else ()
        plain = {
            STEPS: torch.tensor([frame.step for frame in self.frames], dtype=torch.int64),
            PRUNED: torch.tensor([frame.pruned for frame in self.frames], dtype=torch.float64),
            WENT: torch.tensor([frame.went for frame in self.frames], dtype=torch.float64),
            RETURNED: torch.tensor([frame.returned for frame in self.frames], dtype=torch.float64),
        }
        pictures = {name: np.stack([frame.pictures[name] for frame in self.frames]) for name in names}
        return plain | {f"{PICTURE}{name}": torch.from_numpy(found) for name, found in pictures.items()}

    def state(self) -> State:
        """All that `go_on` needs."""
        before = {f"{_BEFORE}{name}": torch.from_numpy(np.packbits(mask)) for name, mask in self._before.items()}
        return self.tensors() | before | {_CALLS: torch.tensor([self._apart, self._calls])}

    def _take(self, step: int, masks: Masks, moved: tuple[float, float] = (0.0, 0.0)) -> None:
        now = {name: mask.detach().cpu().numpy() for name, mask in masks.items() if mask.dim() == 2}
        if not now:
            return
        went = moved[0] + _share(now, lambda name, mask: self._was(name, mask) & ~mask)
        returned = moved[1] + _share(now, lambda name, mask: mask & ~self._was(name, mask))
        pictures = {name: np.rint(LEVELS * coarse(~mask, CELLS)).astype(np.uint8) for name, mask in now.items()}
        self.frames.append(Frame(step, _share(now, lambda name, mask: ~mask), went, returned, pictures))
        self._before = now

    def _was(self, name: str, mask: np.ndarray) -> np.ndarray:
        """At the start nothing is pruned."""
        return self._before.get(name, np.ones_like(mask))

    def _halve(self) -> None:
        kept = self.frames[:1]
        for one, other in zip(self.frames[1::2], self.frames[2::2], strict=True):
            moved = one.went + other.went, one.returned + other.returned
            kept.append(Frame(other.step, other.pruned, *moved, other.pictures))
        self.frames, self._apart = kept, 2 * self._apart


def _share(masks: Mapping[str, np.ndarray], counted: Callable[[str, np.ndarray], np.ndarray]) -> float:
    """The part of all weights that is counted."""
    return sum(int(counted(*one).sum()) for one in masks.items()) / sum(mask.size for mask in masks.values())
