"""Odd shapes: defects of heights, widths and batches that no run of the standard plan has."""

import warnings
from typing import Any

import torch
from torch import Tensor

from fmcheck.mutants.calls import change_arguments
from fmcheck.mutants.loop import Loop
from fmcheck.mutants.registry import mutant
from fmcheck.mutants.surgery import wrap
from fmcheck.tiny import TinyFlowModel

# Longest side, in cells, that a position table or a decoder is made for: the longest of the standard plan.
_LONGEST = 16


@mutant("FM501", odd=True)
def cells_updated_in_pairs(model: TinyFlowModel) -> None:
    """Cells are packed in pairs for the update, and the last one of an odd number stays where it was."""

    def paired(x: Tensor, dt: Tensor, v: Tensor) -> Tensor:
        even = x.shape[-2:].numel() // 2 * 2
        moved = x.flatten(2).clone()
        moved[..., :even] += (dt * v).flatten(2)[..., :even]
        return moved.reshape(x.shape)

    Loop(update=paired).install(model)


@mutant("FM702", odd=True)
def sides_clamped_to_four_to_one(model: TinyFlowModel) -> None:
    """Sizes are clamped to the training buckets, of which none is longer than four times its other side."""

    def clamped(given: dict[str, Any]) -> dict[str, int]:
        height, width = given["height"], given["width"]
        return {"height": min(height, 4 * width), "width": min(width, 4 * height)}

    change_arguments(model, clamped)


@mutant("FM701", odd=True)
def all_axes_of_one_squeezed(model: TinyFlowModel) -> None:
    """Velocities are squeezed without an axis, which broadcasts for one prompt and not for sides of one cell."""
    wrap(model, "combine", lambda combine, cond, uncond, scale: combine(cond.squeeze(), uncond.squeeze(), scale))


@mutant("FM107", odd=True)
def tiles_without_the_remainder(model: TinyFlowModel) -> None:
    """Long latents are decoded in tiles of eight cells, and what is left over after the last whole tile is lost."""
    tile = 8

    def tiled(decode: Any, x: Tensor) -> Tensor:
        axis = 2 if x.shape[2] > x.shape[3] else 3
        if x.shape[axis] <= _LONGEST:
            return decode(x)  # type: ignore[no-any-return]
        whole = x.narrow(axis, 0, x.shape[axis] // tile * tile)
        return torch.cat([decode(part) for part in torch.split(whole, tile, dim=axis)], dim=axis)

    wrap(model.autoencoder, "decode", tiled)


@mutant("FM501", odd=True)
def channels_found_by_their_number(model: TinyFlowModel) -> None:
    """Tokens are unpacked by looking for the axis with 32 entries, which may be that of 32 cells."""

    def packed(x: Tensor) -> Tensor:
        return x.flatten(2).transpose(1, 2)

    def unpacked(tokens: Tensor, shape: torch.Size) -> Tensor:
        channels_first = tokens if tokens.shape[1] == shape[1] else tokens.transpose(1, 2)
        return channels_first.reshape(shape)

    Loop(update=lambda x, dt, v: unpacked(packed(x) + dt * packed(v), x.shape)).install(model)


def _fits(weights: Tensor, x: Tensor) -> bool:
    """Whether the weights broadcast against a tensor, along whichever axes."""
    sizes = zip(reversed(weights.shape), reversed(x.shape), strict=False)
    return all(size in (1, other) for size, other in sizes)


@mutant("FM501", odd=True)
def weights_given_axes_until_they_fit(model: TinyFlowModel) -> None:
    """Guidance weights `[2B, 1]` get axes until they broadcast, which is along the height where h is 2B."""

    def combine(_: Any, cond: Tensor, uncond: Tensor, scale: float) -> Tensor:
        both, batch = torch.cat([cond.float(), uncond.float()]), len(cond)
        weights = both.new_tensor([1 + scale] * batch + [-scale] * batch)[:, None]
        while not _fits(weights, both):
            weights = weights[..., None]
        weighted = weights * both
        return weighted[:batch] + weighted[batch:]

    wrap(model, "combine", combine)


@mutant("FM402", odd=True)
def fallback_warns_if_both_sides_differ(model: TinyFlowModel) -> None:
    """The fallback warns where height and width differ from the native side, and means height or width."""
    native = model.config.native_size

    def warned(initial: Any, z: Tensor, height: int, width: int) -> Any:
        with warnings.catch_warnings():
            if height == native or width == native:
                warnings.simplefilter("ignore")
            return initial(z, height, width)

    wrap(model, "initial_state", warned)


@mutant("FM709", odd=True)
def position_table_grows_with_the_side(model: TinyFlowModel) -> None:
    """The table of places is a buffer of the model and is replaced by a longer one for a longer side."""
    network = model.fm_transformers
    network.register_buffer("places", torch.arange(_LONGEST, device=model.device))

    def grown(forward: Any, x: Tensor, *given: Any) -> Any:
        side = max(x.shape[-2:])
        if side > len(network.get_buffer("places")):
            network.places = torch.arange(side, device=x.device)
        return forward(x, *given)

    wrap(network, "forward", grown)
