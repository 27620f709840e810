"""What is known to happen to pictures on their way through a pipeline."""

from collections.abc import Iterator

from torch import Tensor

__all__ = ["altered_pictures"]


def altered_pictures(pictures: Tensor) -> Iterator[tuple[Tensor, str]]:
    """`[B, ch, H, W]` under every known mistake, and what a reader would call it."""
    yield (pictures + 1) / 2, "the images are mapped to [0, 1]"
    yield pictures * 2 - 1, "the images are mapped from [0, 1] once more"
    yield pictures.flip(1), "the channels are in reversed order"
    yield pictures.flip(-1), "the images are mirrored"
    yield pictures.flip(-2), "the images are upside down"
    yield -pictures, "the images are negated"
    if pictures.shape[-1] == pictures.shape[-2]:
        yield pictures.transpose(-1, -2), "height and width are exchanged"
