"""Progress bars of a batch: one over its files, and below it one over the slices of a volume."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self


class Progress:
    """A bar over `count` files; as a context it closes what is open.

    unfinished: of a volume that is going on its name, how many slices are done and of how many; else None.
    """

    def __init__(self, count: int) -> None:
        from tqdm import tqdm  # type: ignore[import-untyped]  # it comes without types

        self._tqdm: Any = tqdm
        self._files = tqdm(total=count, desc="segmenting", unit="image")
        self._slices: Any = None
        self.unfinished: dict[str, Any] | None = None

    def next(self) -> None:
        """A file is done."""
        self._close_slices()
        self.unfinished = None
        self._files.update()

    def slices(self, name: str) -> Callable[[int, int], None]:
        """What a volume of this name calls with how many more slices are done, and of how many."""
        def tick(more: int, count: int) -> None:
            if self._slices is None:
                self._slices = self._tqdm(total=count, desc=name[-30:], unit="slice", leave=False)
            self._slices.update(more)
            done = self.unfinished["slices"] if self.unfinished else 0
            self.unfinished = {"name": name, "slices": done + more, "of": count}

        return tick

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close_slices()
        self._files.close()

    def _close_slices(self) -> None:
        if self._slices is not None:
            self._slices.close()
            self._slices = None
