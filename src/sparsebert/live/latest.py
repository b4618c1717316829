"""What is kept open: the few things that were asked for last."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass
class Latest(Generic[T]):
    """Keeps `most` things by their keys, and lets go of the one that was asked for longest ago; used on one thread."""

    most: int
    _kept: dict[Hashable, T] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """What is kept under the key, else what `make` gives, once there is room for it."""
        if key not in self._kept:
            while len(self._kept) >= self.most:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = make()
        self._kept[key] = self._kept.pop(key)
        return self._kept[key]
