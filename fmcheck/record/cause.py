"""Common slips behind a tensor of the wrong shape, dtype or device, recognised from the tensor itself."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Slip", "likely_cause"]


@dataclass(frozen=True)
class Slip:
    """What is known of a tensor that does not fit.

    Attributes:
        part: its part in the call: `x`, `time`, `null`, `output`, …
        aspect: what is wrong: `type`, `rank`, `dtype`, `shape` or `device`.
        name: what the code calls it, for advice that can be pasted.
        value: what came.
        axes: names of the axes that were expected, `("N", "C", "h", "w")`.
        sizes: sizes of the axes bound so far.
    """

    part: str
    aspect: str
    name: str
    value: Any
    axes: tuple[str, ...]
    sizes: Mapping[str, int]

    @property
    def per_row(self) -> bool:
        """Whether one number a row was expected."""
        return self.axes == ("N",)

    def wanted(self) -> tuple[int | None, ...]:
        return tuple(self.sizes.get(axis) for axis in self.axes)


def likely_cause(slip: Slip) -> str | None:
    """Advice for a known slip, in one sentence; None when it is none of them."""
    if slip.aspect == "device":
        return f"move it first: {slip.name}.to(x.device)"
    if not isinstance(slip.value, Tensor):
        return _no_tensor(slip)
    recognise: Mapping[str, tuple[Callable[[Slip, Tensor], str | None], ...]] = {
        "dtype": (_dtype,),
        "rank": (_not_one_dimensional,),
        "shape": (_other_half, _doubled_images, _swapped, _channels_last, _not_encoded, _not_decoded, _resized),
    }
    found = (look(slip, slip.value) for look in recognise.get(slip.aspect, ()))
    return next((cause for cause in found if cause), None)


def _no_tensor(slip: Slip) -> str | None:
    if slip.part == "output":
        return "say where the tensor is in what the call returns: Point(output=...)"
    if slip.per_row and isinstance(slip.value, int | float):
        return f"pass one entry a row: torch.full(({slip.sizes.get('N', 'N')},), {slip.name}, device=x.device)"
    return None


def _dtype(slip: Slip, value: Tensor) -> str | None:
    if value.dtype == torch.float64:
        return f"float64 usually comes in with a NumPy array or a Python scalar: {slip.name}.float()"
    if slip.part == "time" and value.dtype in (torch.bfloat16, torch.float16):
        kind = str(value.dtype).removeprefix("torch.")
        return f"{kind} does not keep neighbouring times apart: compute {slip.name} in float32, outside autocast"
    if slip.part == "null":
        return f"pass a mask: {slip.name}.bool()"
    if not value.is_floating_point():
        return f"pass floating numbers: {slip.name}.float()"
    return None


def _not_one_dimensional(slip: Slip, value: Tensor) -> str | None:
    if not slip.per_row:
        return None
    rows = slip.sizes.get("N")
    if value.dim() == 0:
        return f"pass one entry a row: {slip.name}.expand({rows if rows is not None else 'N'})"
    if rows is None or value.numel() == rows:
        return f"pass a 1-D tensor: {slip.name}.flatten()"
    return None


def _other_half(slip: Slip, value: Tensor) -> str | None:
    rows = slip.sizes.get("N")
    if rows is None or slip.axes[0] != "N" or slip.part == "x":
        return None
    if 2 * len(value) == rows and slip.part != "output":
        return f"x holds both guidance halves, {slip.name} only one: torch.cat([{slip.name}, {slip.name}])"
    if len(value) == 2 * rows:
        return f"{slip.name} has the rows of both guidance halves, x of one"
    if 2 * len(value) == rows:
        return "the rows of one guidance half are missing in what was returned"
    return None


def _doubled_images(slip: Slip, value: Tensor) -> str | None:
    if slip.axes[0] == "B" and len(value) == 2 * slip.sizes.get("B", 0):
        return "both guidance halves were decoded; decode the conditional state alone"
    return None


def _swapped(slip: Slip, value: Tensor) -> str | None:
    wanted = slip.wanted()[-2:]
    swapped = value.dim() == 4 and wanted[0] != wanted[1] and tuple(value.shape[-2:]) == wanted[::-1]
    return "height and width are swapped" if swapped else None


def _channels_last(slip: Slip, value: Tensor) -> str | None:
    wanted = slip.wanted()
    last = value.dim() == 4 and tuple(value.shape[1:]) == (*wanted[2:], wanted[1])
    return f"the channels are the last axis: {slip.name}.movedim(-1, 1)" if last else None


def _not_encoded(slip: Slip, value: Tensor) -> str | None:
    picture = tuple(slip.sizes.get(axis) for axis in ("ch", "H", "W"))
    taken = slip.axes[-2:] == ("h", "w") and tuple(value.shape[1:]) == picture
    return "this is a picture and not a latent; encode it first" if taken else None


def _not_decoded(slip: Slip, value: Tensor) -> str | None:
    latent = tuple(slip.sizes.get(axis) for axis in ("C", "h", "w"))
    taken = slip.axes[-2:] == ("H", "W") and tuple(value.shape[1:]) == latent
    return "this is a latent and not a picture; decode it first" if taken else None


def _resized(slip: Slip, value: Tensor) -> str | None:
    if slip.axes[-2:] not in (("h", "w"), ("H", "W")) or value.dim() != len(slip.axes):
        return None
    sizes = zip(slip.wanted()[-2:], value.shape[-2:], strict=True)
    if any(wanted is not None and wanted != found for wanted, found in sizes):
        return "another size than the rest of this run; nothing between two calls may crop, pad or resize"
    return None
