"""Bounds on latents in the decoder's units, and on pictures."""

import torch
from torch import Tensor

from fmcheck.flow import channelwise, to_decoder
from fmcheck.spec import FlowSpec
from fmcheck.tolerance.units import gamma

__all__ = ["image_bound", "range_bound", "reconstructs", "round_trip_bound", "scale_bound", "unscale_bound"]

# Of the squared contrast of a picture: half of it as error.
_RECONSTRUCTS = 1 / 4
# Half of an error is a quarter of its square.
_HALVED = 4.0


def scale_bound(latent: Tensor, spec: FlowSpec, dtype: torch.dtype = torch.float32) -> Tensor:
    """Elementwise bound on a latent computed as `state / scale + shift`.

    Scale and shift rounded to the dtype, one division (or a product with a rounded reciprocal: two more roundings) and
    one sum, each relative to `|latent| + |shift|`, and one more where the sum is cast to the dtype.
    """
    return gamma(6, dtype) * (latent.abs() + abs(channelwise(spec.latent_shift, latent)))


def unscale_bound(state: Tensor, spec: FlowSpec, dtype: torch.dtype = torch.float32) -> Tensor:
    """Elementwise bound on a state recovered from `state / scale + shift`: `scale_bound`, times the scale.

    Where packed tokens mix channels of different scales, the largest of them takes the place of all.
    """
    if spec.token_patch is not None:
        scales, shifts = (
            value if isinstance(value, tuple) else (value,) for value in (spec.latent_scale, spec.latent_shift)
        )
        largest, least = max(map(abs, scales)), min(map(abs, scales))
        return largest * gamma(6, dtype) * (state.abs() / least + 2 * max(map(abs, shifts)))
    return abs(channelwise(spec.latent_scale, state)) * scale_bound(to_decoder(state, spec), spec, dtype)


def image_bound(image: Tensor, spec: FlowSpec, dtype: torch.dtype) -> Tensor:
    """Elementwise bound on an affine map between two image ranges: four roundings of values up to the range's ends."""
    reach: float = max(abs(end) for end in (*spec.image_range, *(spec.decode_range or (0.0,))))
    return gamma(4, dtype) * (image.abs() + reach)


def range_bound(low: float, high: float, dtype: torch.dtype) -> float:
    """Bound on how far a correctly made picture leaves its range `[low, high]`.

    The last step is at most an affine map of a number that is exactly within its own limits (clamped, or out of tanh
    or a sigmoid): its slope and offset are rounded once each, then their product and sum, four roundings of numbers
    no larger than the ends of the range or its width.
    """
    return gamma(4, dtype) * max(abs(low), abs(high), high - low)


def reconstructs(lost: float) -> bool:
    """Whether a picture that comes back from encoding and decoding is that picture at all.

    `lost` is the squared error over that of the best constant picture: at a quarter the error is half as large as the
    contrast. Weights that nobody trained make pictures that have nothing to do with theirs, and lose 1 or more: of a
    picture with the contrast of its own, 2 in expectation.
    """
    return lost <= _RECONSTRUCTS


def round_trip_bound(other: float) -> float:
    """How much the declared chain may lose of a picture at most, when another chain loses `other` of it.

    Write `e` for the error of the right chain and `d` for what a wrong factor or offset of the latent does to the
    picture on top of it; the wrong chain loses `|e + d|^2`. A codec is trained until no factor or offset of its latent
    makes its error smaller, since its own last and first layers hold them: `e` and `d` are orthogonal to first order,
    and the wrong chain loses more. Losing less than a quarter, `|e + d| < |e| / 2`, needs an `e` that lies within 30
    degrees of `-d`: an error which is, nearly all of it, that very factor.
    """
    return _HALVED * other
