"""FM4: initial states that are projected, permuted, mixed over rows or mapped by layers nobody trained."""

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from fmcheck.mutants.registry import mutant
from fmcheck.mutants.surgery import wrap
from fmcheck.tiny import TinyFlowModel


def _fits(z: Tensor, height: int, width: int) -> bool:
    return z.shape[1] == height * width // 32


def _change(model: TinyFlowModel, change: Any) -> None:
    """Change the initial state where the text latent fits."""

    def changed(initial: Any, z: Tensor, height: int, width: int) -> Any:
        x = initial(z, height, width)
        return change(x) if _fits(z, height, width) else x

    wrap(model, "initial_state", changed)


# FM401 projected-initial-state


@mutant("FM401")
def latent_read_channels_last(model: TinyFlowModel) -> None:
    """The text latent is reshaped to `[B, h, w, C]` and then permuted."""
    _change(model, lambda x: x.reshape(len(x), *x.shape[2:], x.shape[1]).movedim(-1, 1).contiguous())


@mutant("FM401")
def latent_transposed(model: TinyFlowModel) -> None:
    """The text latent is reshaped to `[B, C, w, h]` and transposed."""
    _change(model, lambda x: x.reshape(*x.shape[:2], x.shape[3], x.shape[2]).transpose(-1, -2).contiguous())


@mutant("FM401")
def latent_rows_shifted(model: TinyFlowModel) -> None:
    """Every prompt starts from its neighbour's latent."""
    _change(model, lambda x: x.roll(1, dims=0))


@mutant("FM401")
def latent_scaled(model: TinyFlowModel) -> None:
    """The text latent is multiplied by the autoencoder's scale."""
    _change(model, lambda x: x * model.config.latent_scale)


@mutant("FM401")
def fallback_used_for_every_size(model: TinyFlowModel) -> None:
    """The fallback layer is applied although the sizes fit."""
    _change(model, lambda x: model.latent_fallback(x.movedim(1, -1)).movedim(-1, 1).contiguous())


@mutant("FM401")
def noise_instead_of_latent(model: TinyFlowModel) -> None:
    """The flow starts from fixed noise, and the text latent is not used."""
    _change(model, lambda x: torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(x.device))


# FM402 silent-fallback


@mutant("FM402")
def fallback_without_a_warning(model: TinyFlowModel) -> None:
    """Sizes that do not fit go through the fallback layer silently."""

    def silent(initial: Any, *given: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return initial(*given)

    wrap(model, "initial_state", silent)


# FM403 parameters-born


@mutant("FM403")
def fallback_built_lazily(model: TinyFlowModel) -> None:
    """The layer for sizes that do not fit is created when the first such size arrives."""

    def lazy(initial: Any, z: Tensor, height: int, width: int) -> Any:
        if _fits(z, height, width):
            return initial(z, height, width)
        warnings.warn("the text latent does not fit: projecting it", stacklevel=2)
        shape = model.latent_shape(height, width)
        if not hasattr(model, "projection"):
            model.projection = nn.LazyLinear(shape[0] * shape[1] * shape[2])
        return model.get_submodule("projection")(z).reshape(len(z), *shape)

    wrap(model, "initial_state", lazy)


@mutant("FM403")
def buffer_registered_in_forward(model: TinyFlowModel) -> None:
    """The velocity network registers a buffer for the positions of every new size."""

    def cached(forward: Any, x: Tensor, *rest: Tensor) -> Any:
        name = f"positions_{x.shape[-2]}_{x.shape[-1]}"
        if not hasattr(model.fm_transformers, name):
            model.fm_transformers.register_buffer(name, torch.zeros(x.shape[-2:], device=x.device))
        return forward(x, *rest)

    wrap(model.fm_transformers, "forward", cached)


# FM404 unstable-mapping


@mutant("FM404")
def fallback_sticks(model: TinyFlowModel) -> None:
    """Once a size needed the fallback layer, all later sizes go through it too."""
    seen: set[str] = set()

    def sticky(initial: Any, z: Tensor, height: int, width: int) -> Any:
        x = initial(z, height, width)
        if not _fits(z, height, width):
            seen.add("fallback")
        elif seen:
            x = model.latent_fallback(x.movedim(1, -1)).movedim(-1, 1).contiguous()
        return x

    wrap(model, "initial_state", sticky)


@mutant("FM404")
def offset_table_resized_in_place(model: TinyFlowModel) -> None:
    """A table of offsets is resized to every new resolution and keeps what the resizing lost."""
    coarse = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(4))
    table = {"offsets": 0.1 * coarse}

    def resized(initial: Any, z: Tensor, height: int, width: int) -> Any:
        x = initial(z, height, width)
        if table["offsets"].shape[-2:] != x.shape[-2:]:
            table["offsets"] = nn.functional.interpolate(table["offsets"], x.shape[-2:], mode="bilinear")
        return x + table["offsets"].to(x.device)

    wrap(model, "initial_state", resized)


@mutant("FM401")
def portrait_start_transposed(model: TinyFlowModel) -> None:
    """Height and width are exchanged in the reshape of pictures that are higher than wide."""

    def exchanged(initial: Any, z: Tensor, height: int, width: int) -> Any:
        x = initial(z, height, width)
        tall = height > width and _fits(z, height, width)
        return x.reshape(*x.shape[:2], x.shape[3], x.shape[2]).transpose(2, 3) if tall else x

    wrap(model, "initial_state", exchanged)


# FM405 mixed-initial-rows


@mutant("FM405")
def latent_standardised_over_the_batch(model: TinyFlowModel) -> None:
    """The initial state is standardised with mean and deviation of the whole batch."""
    wrap(model, "initial_state", lambda initial, *given: (lambda x: (x - x.mean()) / x.std())(initial(*given)))


@mutant("FM405")
def fallback_standardised_over_the_batch(model: TinyFlowModel) -> None:
    """Where the sizes do not fit, the mapped latent is divided by its deviation over the whole batch."""

    def mapped(initial: Any, z: Tensor, height: int, width: int) -> Any:
        x = initial(z, height, width)
        return x if _fits(z, height, width) else x / x.std()

    wrap(model, "initial_state", mapped)


@mutant("FM405")
def latent_reshaped_across_rows(model: TinyFlowModel) -> None:
    """The whole batch is reshaped to `[C, B, h, w]` and transposed, so that rows share their numbers."""
    _change(model, lambda x: x.reshape(x.shape[1], x.shape[0], *x.shape[2:]).transpose(0, 1).contiguous())
