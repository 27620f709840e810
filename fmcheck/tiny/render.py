"""Rendering: a placed shape as a picture of any size, antialiased, by signed distances."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from fmcheck.tiny.checks import positive_int
from fmcheck.tiny.scenes import Placed

# Extents of the shapes that cover as much as the unit circle: half a side of the square, the circumradius of the
# equilateral triangle, half the span of a cross whose arms are a third of it wide.
SQUARE = math.sqrt(math.pi) / 2
TRIANGLE = math.sqrt(4 * math.pi / (3 * math.sqrt(3)))
CROSS = math.sqrt(9 * math.pi / 20)


def distance(shape: str, y: Tensor, x: Tensor) -> Tensor:
    """Signed distance to the outline of a unit shape around its centroid, negative inside, y downwards.

    Outside of corners it is a lower bound, whose zero is exact.  ``ValueError`` for an unknown shape.
    """
    if shape == "circle":
        return torch.hypot(y, x) - 1
    if shape == "square":
        return torch.maximum(y.abs(), x.abs()) - SQUARE
    if shape == "triangle":
        # Three half planes at half the circumradius; one corner points up.
        slant = math.sqrt(3) / 2 * x.abs() - y / 2
        return torch.maximum(y, slant) - TRIANGLE / 2
    if shape == "cross":
        long, short = torch.maximum(y.abs(), x.abs()), torch.minimum(y.abs(), x.abs())
        return torch.maximum(long - CROSS, short - CROSS / 3)
    raise ValueError(f"shape: expected circle, square, triangle or cross, found {shape!r}")


def outline(
    placed: Placed, height: int, width: int, window: tuple[int, int, int, int] | None = None
) -> Float[Tensor, "h w"]:
    """Signed distance of every pixel's centre to the outline, in pixels, float32, negative inside.

    ``window`` is ``(top, left, h, w)`` in pixels of the ``height`` x ``width`` picture; None is all of it.
    """
    top, left, rows, columns = (0, 0, height, width) if window is None else window
    radius = placed.radius * min(height, width)
    y = (torch.arange(top, top + rows, dtype=torch.float32) + 0.5 - placed.centre[0] * height)[:, None] / radius
    x = (torch.arange(left, left + columns, dtype=torch.float32) + 0.5 - placed.centre[1] * width)[None, :] / radius
    return distance(placed.shape, *turned(y, x, placed.angle)) * radius


def turned(y: Tensor, x: Tensor, angle: float) -> tuple[Tensor, Tensor]:
    """Coordinates in the frame of a shape that is turned by ``angle`` radians."""
    sin, cos = math.sin(angle), math.cos(angle)
    return cos * y - sin * x, sin * y + cos * x


def render(
    placed: Sequence[Placed],
    height: int,
    width: int,
    windows: Sequence[tuple[int, int, int, int]] | None = None,
) -> Float[Tensor, "N 3 h w"]:
    """Pictures in [-1, 1], float32 on the CPU: a shape in one colour on a background in another.

    Raises ``ValueError`` unless ``height`` and ``width`` are positive ints and there is at least one shape.
    """
    positive_int("height", height)
    positive_int("width", width)
    if not placed:
        raise ValueError("placed: expected at least one shape, found none")
    pictures = []
    for index, one in enumerate(placed):
        away = outline(one, height, width, windows[index] if windows is not None else None)
        # Linear over the pixel that the outline crosses.
        covered = (0.5 - away).clamp(0, 1)
        colour = torch.tensor(one.colour, dtype=torch.float32)[:, None, None]
        background = torch.tensor(one.background, dtype=torch.float32)[:, None, None]
        pictures.append(background + (colour - background) * covered)
    return 2 * torch.stack(pictures) - 1
