"""Scenes: what a prompt of the grammar asks for, and the pictures that the tiny model is trained and judged on.

``a large red circle on a blue background, top left``: 2 sizes, 8 colours, 4 shapes, 6 backgrounds and 5 positions,
without a shape in the colour of its background: 1,760 prompts, of which a tenth is held out.
"""

import hashlib
import math
import re
from dataclasses import dataclass
from functools import cache
from itertools import product

import torch

from fmcheck.tiny.checks import describe
from fmcheck.tiny.tokenizer import SHAPES, SIZES

COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "cyan", "white")
BACKGROUNDS = ("black", "gray", "white", "blue", "green", "yellow")
POSITIONS = ("top left", "top right", "bottom left", "bottom right", "center")

# sRGB in [0, 1]; every two of them are at least 0.35 apart, twelve times the jitter of a channel.
PALETTE = {
    "red": (0.85, 0.12, 0.12),
    "green": (0.12, 0.60, 0.20),
    "blue": (0.12, 0.25, 0.85),
    "yellow": (0.95, 0.85, 0.15),
    "orange": (0.95, 0.45, 0.05),
    "purple": (0.55, 0.15, 0.65),
    "cyan": (0.15, 0.80, 0.90),
    "white": (0.97, 0.97, 0.97),
    "black": (0.04, 0.04, 0.04),
    "gray": (0.50, 0.50, 0.50),
}
# Centres as fractions of height and width.
CENTRES = {
    "top left": (0.30, 0.30),
    "top right": (0.30, 0.70),
    "bottom left": (0.70, 0.30),
    "bottom right": (0.70, 0.70),
    "center": (0.50, 0.50),
}
# Radius of the circle of the same area, as a fraction of the shorter side: all shapes of a size cover equally much.
RADII = {"large": 0.18, "small": 0.115}

# Half widths of the uniform jitters: centre (fraction of the shorter side), radius (relative), angle, colour channel.
JITTER_CENTRE, JITTER_RADIUS, JITTER_ANGLE, JITTER_COLOUR = 0.015, 0.05, math.radians(6), 0.03

HELD_OUT = 176

_PROMPT = re.compile(
    rf"a ({'|'.join(SIZES)}) ({'|'.join(COLOURS)}) ({'|'.join(SHAPES)}) "
    rf"on a ({'|'.join(BACKGROUNDS)}) background, ({'|'.join(POSITIONS)})"
)


@dataclass(frozen=True)
class Scene:
    """One picture in words; ``str(scene)`` is its prompt."""

    size: str
    colour: str
    shape: str
    background: str
    position: str

    def __str__(self) -> str:
        """Spell the prompt."""
        return f"a {self.size} {self.colour} {self.shape} on a {self.background} background, {self.position}"


@dataclass(frozen=True)
class Placed:
    """A scene in numbers: centre ``(y, x)`` as fractions, radius as a fraction of the shorter side, angle in
    radians, colours in [0, 1]."""

    shape: str
    centre: tuple[float, float]
    radius: float
    angle: float
    colour: tuple[float, float, float]
    background: tuple[float, float, float]


def parse(prompt: str) -> Scene:
    """Read a prompt of the grammar; ``ValueError`` for any other text."""
    found = _PROMPT.fullmatch(prompt) if isinstance(prompt, str) else None
    if found is None or found[2] == found[4]:
        raise ValueError(
            f"prompt: expected one of the grammar, as {str(scenes('train')[0])!r}, found {describe(prompt)}"
        )
    size, colour, shape, background, position = found.groups()
    return Scene(size, colour, shape, background, position)


@cache
def scenes(split: str) -> tuple[Scene, ...]:
    """All scenes of ``train`` or ``held_out``, in an order that mixes them; ``ValueError`` for another name.

    The order, and with it the split, is that of the prompts' SHA-256: the same on every machine and in every version.
    """
    every = [Scene(*words) for words in product(SIZES, COLOURS, SHAPES, BACKGROUNDS, POSITIONS) if words[1] != words[3]]
    every.sort(key=lambda scene: hashlib.sha256(str(scene).encode()).digest())
    if split not in ("train", "held_out"):
        raise ValueError(f"split: expected 'train' or 'held_out', found {describe(split)}")
    return tuple(every[:HELD_OUT] if split == "held_out" else every[HELD_OUT:])


def exactly(scene: Scene) -> Placed:
    """Numbers of a scene without any jitter."""
    return Placed(
        scene.shape,
        CENTRES[scene.position],
        RADII[scene.size],
        0.0,
        PALETTE[scene.colour],
        PALETTE[scene.background],
    )


def jittered(scene: Scene, seed: int) -> Placed:
    """Numbers of a scene moved, scaled, turned and tinted a little; a function of ``seed`` alone."""
    # The generator is private, and CPU: the same picture on every device.
    noise = 2 * torch.rand(10, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 1
    y, x, radius, angle, *colours = noise.tolist()
    plain = exactly(scene)

    def tinted(colour: tuple[float, float, float], by: list[float]) -> tuple[float, float, float]:
        red, green, blue = (min(1.0, max(0.0, c + JITTER_COLOUR * d)) for c, d in zip(colour, by, strict=True))
        return red, green, blue

    return Placed(
        plain.shape,
        (plain.centre[0] + JITTER_CENTRE * y, plain.centre[1] + JITTER_CENTRE * x),
        plain.radius * (1 + JITTER_RADIUS * radius),
        JITTER_ANGLE * angle,
        tinted(plain.colour, colours[:3]),
        tinted(plain.background, colours[3:]),
    )


def example(split: str, index: int) -> tuple[str, Placed]:
    """Prompt and picture number ``index`` of a split: the scenes in turn, every time with another jitter."""
    among = scenes(split)
    scene = among[index % len(among)]
    # Far apart, so that no held-out picture has the jitter of a training picture.
    return str(scene), jittered(scene, index + (0 if split == "train" else 2**40))
