"""A torch data set of given items."""

from __future__ import annotations

from typing import Any

from torch.utils.data import Dataset


class Rows(Dataset[Any]):
    """Items of a list as a map-style data set."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]
