"""What one rank made of a run, as plain tensors and words."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

__all__ = ["PROMPTS", "Share", "packed", "unpacked"]

# Of a run on ranks: divisible by no number of ranks up to 6, and on up to 4 no rank is left without a prompt however
# they are dealt out.
PROMPTS = 7


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one rank made.

    Attributes:
        rank: from 0.
        images: `[n, channels, H, W]`; None when none came out.
        indices: which prompt each of them belongs to, as the subject says; empty unless the prompts were divided.
        starts: `[rows, ...]`, the states at which the network was first evaluated, all rows of all such calls: both
            branches of guidance, every part of the batch. None where the calls have no states or times.
        velocity: what the first network call returned.
        last_state: what the last network call was given.
        shapes: of the inputs of every observed call, in no order: `velocity[2,4,8,8][2]`.
        sources: random generators that were drawn from: `caller`, `torch`, `python`, `numpy` or a device.
        error: why there are none of these, in one line; empty when the rank came to its end.
        exhausted: whether the memory of its device was.
        ended: when, in seconds since the epoch: the first error is the cause of the others.
    """

    rank: int
    images: Tensor | None = None
    indices: tuple[int, ...] = ()
    starts: Tensor | None = None
    velocity: Tensor | None = None
    last_state: Tensor | None = None
    shapes: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    error: str = ""
    exhausted: bool = False
    ended: float = 0.0


_TENSORS = tuple(field.name for field in fields(Share) if field.type == Tensor | None)


def packed(share: Share, path: Path) -> Share:
    """Write the tensors of a share into a file, and return the rest of it.

    Not through the pipe, where torch would hand over shared memory that goes with the process that made it.
    """
    tensors = {name: getattr(share, name) for name in _TENSORS}
    save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items() if tensor is not None}, path)
    gone: dict[str, Any] = dict.fromkeys(_TENSORS)
    return replace(share, **gone)


def unpacked(share: Share, path: Path) -> Share:
    """The whole share again. The file goes."""
    tensors: dict[str, Any] = load_file(path)
    path.unlink()
    return replace(share, **tensors)
