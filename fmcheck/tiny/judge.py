"""A rule-based judge of pictures under prompts of the grammar: it measures, and needs no network and no download."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fmcheck.tiny.checks import float_tensor
from fmcheck.tiny.render import distance, outline, turned
from fmcheck.tiny.scenes import CENTRES, JITTER_ANGLE, PALETTE, RADII, Placed, Scene, parse
from fmcheck.tiny.tokenizer import SHAPES

__all__ = ["ATTRIBUTES", "score"]

ATTRIBUTES = ("background", "colour", "position", "size", "shape", "clean")

# Half the distance between the two nearest colours of the palette: further away it is none of them.
NEAR_COLOUR = min(math.dist(a, b) for a in PALETTE.values() for b in PALETTE.values() if a != b) / 2
# Half the distance between neighbouring centres.
NEAR_CENTRE = math.dist(CENTRES["center"], CENTRES["top left"]) / 2
# Between the radii on a logarithmic scale, and as far beyond them.
RADIUS_RATIO = math.sqrt(RADII["large"] / RADII["small"])
# Less than this share of the picture is a speck: a quarter of the smallest shape.
SPECK = math.pi * RADII["small"] ** 2 / 4
# Wrong pixels that a clean picture may have, beyond the outline: a tenth of the smallest shape.
DIRT = math.pi * RADII["small"] ** 2 / 10
# Width of the strip along the border, and of the band around the outline that is not judged, in shorter sides.
BORDER, BAND = 0.04, 0.016
# The lattice on which shapes are compared: points a side, and half its side in radii of the shape.
LATTICE, REACH = 64, 1.7


@dataclass(frozen=True)
class Seen:
    """What is in a picture: colours in [0, 1], the pixels of the shape, its centre, and its radius.

    The radius is that of the circle of the same area, in shorter sides; ``mask`` is empty when there is no shape.
    """

    background: tuple[float, float, float]
    colour: tuple[float, float, float]
    mask: Bool[Tensor, "H W"]
    centre: tuple[float, float]
    radius: float


def score(prompts: Sequence[str], images: Float[Tensor, "N 3 H W"]) -> dict[str, Tensor]:
    """Judge pictures in [-1, 1], float32 on the CPU, one prompt each.

    Returns tensors ``[N]`` of 0 and 1 for every attribute, for ``basic`` (background, colour and position) and
    ``full`` (all of them), and ``score``, the share of the attributes that are right.
    Raises ``ValueError`` for a prompt outside the grammar or pictures of another shape.
    """
    float_tensor("images", images, (len(prompts), 3, None, None))
    if not prompts:
        raise ValueError("prompts: expected at least one prompt, found none")
    rows = [_attributes(parse(prompt), (image.float() + 1) / 2) for prompt, image in zip(prompts, images, strict=True)]
    right = {name: torch.tensor([float(row[name]) for row in rows]) for name in ATTRIBUTES}
    values = torch.stack(list(right.values()))
    return {**right, "basic": values[:3].amin(dim=0), "full": values.amin(dim=0), "score": values.mean(dim=0)}


def _attributes(scene: Scene, image: Float[Tensor, "3 H W"]) -> Mapping[str, bool]:
    if not bool(image.isfinite().all()):
        return dict.fromkeys(ATTRIBUTES, False)
    seen = look(image)
    background = _nearest(seen.background) == scene.background
    if not bool(seen.mask.any()):
        return dict.fromkeys(ATTRIBUTES, False) | {"background": background}
    found = fit(seen)
    ratio = seen.radius / RADII[scene.size]
    return {
        "background": background,
        "colour": _nearest(seen.colour) == scene.colour,
        "position": math.dist(seen.centre, CENTRES[scene.position]) < NEAR_CENTRE,
        "size": 1 / RADIUS_RATIO < ratio < RADIUS_RATIO,
        "shape": found.shape == scene.shape,
        "clean": dirt(image, found) <= DIRT,
    }


def look(image: Float[Tensor, "3 H W"]) -> Seen:
    """Find background and shape in a picture in [0, 1]: the shape is what stands out from the border's colour."""
    height, width = image.shape[-2:]
    strip = max(1, round(BORDER * min(height, width)))
    inner = torch.zeros(height, width, dtype=torch.bool)
    inner[strip:-strip, strip:-strip] = True
    background = image[:, ~inner].median(dim=1).values
    away = (image - background[:, None, None]).norm(dim=0)
    # Half way to what stands out most, but no less than what no two colours of the palette share.
    most = float(away.flatten().kthvalue(max(1, round(away.numel() * (1 - SPECK)))).values)
    mask = away > max(most / 2, NEAR_COLOUR)
    area = float(mask.sum())
    if area < SPECK * height * width:
        return Seen(_rgb(background), (math.nan,) * 3, torch.zeros_like(mask), (math.nan, math.nan), 0.0)
    rows, columns = mask.nonzero(as_tuple=True)
    centre = ((float(rows.double().mean()) + 0.5) / height, (float(columns.double().mean()) + 0.5) / width)
    radius = math.sqrt(area / math.pi) / min(height, width)
    colour = image[:, mask].median(dim=1).values
    return Seen(_rgb(background), _rgb(colour), mask, centre, radius)


def _rgb(colour: Tensor) -> tuple[float, float, float]:
    red, green, blue = colour.tolist()
    return red, green, blue


@cache
def _templates() -> tuple[tuple[str, ...], Tensor, Tensor]:
    """Names, angles and masks ``[T, LATTICE**2]`` of unit shapes, on a lattice around them."""
    line = REACH * ((torch.arange(LATTICE, dtype=torch.float32) + 0.5) / LATTICE * 2 - 1)
    names, angles, masks = [], [], []
    for shape in SHAPES:
        for turn in (0.0,) if shape == "circle" else (-1.0, -0.5, 0.0, 0.5, 1.0):
            names.append(shape)
            angles.append(turn * JITTER_ANGLE)
            masks.append((distance(shape, *turned(line[:, None], line[None, :], angles[-1])) < 0).flatten())
    return tuple(names), torch.tensor(angles), torch.stack(masks).float()


def fit(seen: Seen) -> Placed:
    """Shape of the grammar that overlaps most with what is seen: intersection over union, on a lattice around it."""
    height, width = seen.mask.shape
    line = REACH * seen.radius * min(height, width) * ((torch.arange(LATTICE) + 0.5) / LATTICE * 2 - 1)
    rows = (seen.centre[0] * height + line).floor().long()
    columns = (seen.centre[1] * width + line).floor().long()
    inside = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))[None, :]
    there = seen.mask[rows.clamp(0, height - 1)][:, columns.clamp(0, width - 1)] & inside
    names, angles, masks = _templates()
    common = masks @ there.flatten().float()
    best = int((common / (masks.sum(dim=1) + float(there.sum()) - common)).argmax())
    colour, background = seen.colour, seen.background
    return Placed(names[best], seen.centre, seen.radius, float(angles[best]), colour, background)


def dirt(image: Float[Tensor, "3 H W"], found: Placed) -> float:
    """Share of the picture that is neither the shape's colour inside nor the background's outside of the outline."""
    height, width = image.shape[-2:]
    away = outline(found, height, width)
    band = BAND * min(height, width)
    wrong = torch.zeros(height, width, dtype=torch.bool)
    for region, colour in ((away < -band, found.colour), (away > band, found.background)):
        wrong |= region & ((image - torch.tensor(colour)[:, None, None]).norm(dim=0) > NEAR_COLOUR)
    return float(wrong.float().mean())


def _nearest(colour: Sequence[float]) -> str | None:
    name = min(PALETTE, key=lambda name: math.dist(PALETTE[name], colour))
    return name if math.dist(PALETTE[name], colour) < NEAR_COLOUR else None
