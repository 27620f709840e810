"""The latent behind the loop: layout, scale and shift in front of the decoder, and which function makes the picture."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fmcheck.flow import pack
from fmcheck.init.explore import Seen, Watched
from fmcheck.init.fit_guidance import least_squares
from fmcheck.spec import FlowSpec

__all__ = ["Affine", "LatentFit", "fit_affine", "fit_latent"]

_GOOD = 2e-3


@dataclass
class Affine:
    """`z = x / scale + shift`, one number for all or one a channel."""

    scale: float | tuple[float, ...]
    shift: float | tuple[float, ...]
    residual: float

    @property
    def trivial(self) -> bool:
        return self.scale == 1.0 and self.shift == 0.0


def fit_affine(z: Tensor, x: Tensor) -> Affine:
    """The scale and shift that lead from `x` to `z`, `[N, C, ...]` each: two numbers, else two a channel."""
    whole = _line(z, x)
    if whole.residual < _GOOD or z.dim() < 4:
        return whole
    parts = [_line(z[:, c], x[:, c]) for c in range(z.shape[1])]
    residual = max(part.residual for part in parts)
    if residual >= _GOOD:
        return whole
    scales, shifts = tuple(float(p.scale) for p in parts), tuple(float(p.shift) for p in parts)  # type: ignore[arg-type]
    return Affine(scales, shifts, residual)


def _line(z: Tensor, x: Tensor) -> Affine:
    fit = least_squares(z, [x.double(), torch.ones_like(x, dtype=torch.float64)])
    slope, shift = fit.coefficients
    scale = 1 / slope if slope else 1.0
    # People write a deviation as often as its inverse.
    direct, inverse = _short(scale), _short(slope) if slope else 1.0
    return Affine(direct if len(repr(direct)) <= len(repr(inverse)) else 1 / inverse, _short(shift), fit.residual)


def _short(value: float) -> float:
    """The shortest decimal within the error of a fit to float32 numbers: people write short ones."""
    if abs(value) < 4e-7:
        return 0.0
    for digits in range(1, 8):
        short = float(f"{value:.{digits}g}")
        if abs(short - value) <= 4e-6 * max(abs(value), 0.1):
            return short
    return value


@dataclass
class LatentFit:
    """Roles behind the loop and the fields of the spec that go with them."""

    decode: Seen
    decode_input: str
    affine: Affine
    fields: dict[str, Any] = field(default_factory=dict)
    sample: Seen | None = None
    sample_input: str = ""


def _pictures(watched: Watched, after: int, size: tuple[int, int, int]) -> Iterator[Seen]:
    """Calls after the loop that return pictures `[B, 3, ..., H, W]`, outermost first."""
    for call in sorted(watched.calls, key=lambda c: (-c.end, c.start)):
        out = call.output
        fits = isinstance(out, Tensor) and out.dim() in (4, 5) and len(out) == size[0] and out.shape[1] == 3
        if call.start > after and fits and tuple(out.shape[-2:]) == size[1:]:  # type: ignore[union-attr]
            yield call


def _layouts(z: Tensor, x: Tensor) -> Iterator[tuple[dict[str, Any], Tensor]]:
    """The latent `z` in the layout of the state: as it is, or packed to tokens."""
    if z.shape == x.shape:
        yield {}, z
    if x.dim() == 3 and z.dim() in (4, 5) and x.numel() == z.numel():
        for order in ("channels_first", "channels_last"):
            for patch in (1, 2, 4):
                if z.shape[-1] % patch or z.shape[-2] % patch or x.shape[2] != z.shape[1] * patch * patch:
                    continue
                fields = {"token_patch": patch, "token_order": order}
                down = {"latent_channels": z.shape[1], "downsampling": 1, "size_multiple": patch}
                yield fields, pack(z, FlowSpec(**down, **fields))  # type: ignore[arg-type]


def fit_latent(watched: Watched, final: Tensor, after: int, size: tuple[int, int, int]) -> LatentFit | None:
    """The decoder, told by its input being an affine function of the final state; None when no call has such a one.

    Args:
        final: the state that the loop ended at, float64.
        after: the place of the last network call among the events.
        size: `(B, H, W)` of the pictures.
    """
    found: list[LatentFit] = []
    for call in _pictures(watched, after, size):
        for name, z in call.inputs.items():
            if not isinstance(z, Tensor) or not z.is_floating_point() or z.dim() not in (4, 5):
                continue
            for fields, packed in _layouts(z.double(), final):
                affine = fit_affine(packed, final)
                if affine.residual < _GOOD and not any(_same(f, z) for f in found):
                    found.append(LatentFit(call, name, affine, {**fields, "latent_channels": z.shape[1]}))
    if not found:
        return None
    chosen = found[0]
    deeper = next((f for f in found[1:] if f.decode.inside(chosen.decode) and not f.affine.trivial), None)
    if chosen.affine.trivial and deeper is not None:
        # A function that scales and decodes: the decoder inside of it shows both.
        chosen = deeper
    _find_sample(watched, chosen, final, after)
    return chosen


def _same(fit: LatentFit, z: Tensor) -> bool:
    other = fit.decode.inputs[fit.decode_input]
    return other.shape == z.shape and torch.equal(other, z)


def _find_sample(watched: Watched, fit: LatentFit, final: Tensor, after: int) -> None:
    """A call that is given the final state and returns what the decoder is given."""
    z = fit.decode.inputs[fit.decode_input].double()
    for call in watched.calls:
        out = call.output
        if not after < call.start < fit.decode.start or not isinstance(out, Tensor) or out.shape != z.shape:
            continue
        if float((out.double() - z).norm()) > _GOOD * float(z.norm()):
            continue
        for name, x in call.inputs.items():
            alike = isinstance(x, Tensor) and x.shape == final.shape and x.is_floating_point()
            if alike and float((x.double() - final).norm()) < _GOOD * float(final.norm()):
                fit.sample, fit.sample_input = call, name
                return
