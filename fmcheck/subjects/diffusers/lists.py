"""A network that takes its rows as a list, with a place where they can be seen as one tensor."""

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["STACKED", "show_rows"]

STACKED = "rows_forward"
_CLASSES: dict[type, type] = {}


def show_rows(network: nn.Module) -> None:
    """Gives the network a method `rows_forward(x, time, ...)` that its own calls go through.

    `x` is `[N, C, h, w]`, whose rows its `forward` is handed as a list (with a frame axis, as Z-Image wants them); it
    returns `[N, C, h, w]`. The network's class becomes a subclass of its own, so that copies behave alike.
    """
    kind = type(network)
    if kind not in _CLASSES:
        _CLASSES[kind] = type(kind.__name__, (_Rows, kind), {"__module__": kind.__module__})
    network.__class__ = _CLASSES[kind]


class _Rows:
    """The two sides of the seam: lists outside, a tensor at the seam, lists again for the network's own forward."""

    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(x, list) or not x or not all(isinstance(row, Tensor) and row.dim() == 4 for row in x):
            return super().forward(x, *args, **kwargs)  # type: ignore[misc]
        rows = self.rows_forward(torch.stack(x).squeeze(2), *args, **kwargs)
        return (list(rows.unsqueeze(2)),)

    def rows_forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        returned = super().forward(list(x.unsqueeze(2)), *args, **kwargs)  # type: ignore[misc]
        return torch.stack(list(returned[0])).squeeze(2)
