"""FM7, the result: `generate` that raises, or returns pictures of another shape, range or dtype."""

from typing import Any

import torch
from torch import Tensor

from fmcheck.mutants.calls import change_arguments, change_result
from fmcheck.mutants.registry import mutant
from fmcheck.mutants.surgery import wrap
from fmcheck.tiny import TinyFlowModel

# FM701 generate-raises


@mutant("FM701")
def one_prompt_squeezed(model: TinyFlowModel) -> None:
    """The text latent is squeezed, so that a single prompt loses its batch axis."""
    wrap(model, "initial_state", lambda initial, z, h, w: initial(z.squeeze(0), h, w))


@mutant("FM701")
def square_pictures_only(model: TinyFlowModel) -> None:
    """The initial state assumes as many rows as columns."""

    def square(initial: Any, z: Tensor, height: int, width: int) -> Any:
        side = round((z.shape[1] / 32) ** 0.5)
        return initial(z, height, width).reshape(len(z), 32, side, side)

    wrap(model, "initial_state", square)


@mutant("FM701")
def no_velocity_without_guidance(model: TinyFlowModel) -> None:
    """The unconditional velocity is used although it is None when guidance is off."""

    def combined(_: Any, x: Tensor, grid: Any, scale: float) -> Tensor:
        for t, dt in zip(grid.t_mid, grid.dt, strict=True):
            x = x + dt * model.combine(*model.velocities(x, t, guided=scale != 0), scale)  # type: ignore[arg-type]
        return x

    wrap(model, "integrate", combined)


@mutant("FM701")
def loss_needs_the_native_size(model: TinyFlowModel) -> None:
    """The training loss fails for every batch but one of 8."""
    wrap(model, "sample_times", lambda times, batch, generator: times(batch, generator).reshape(8))


# FM702 wrong-image-shape


@mutant("FM702")
def picture_transposed(model: TinyFlowModel) -> None:
    """The picture comes out as `[B, 3, W, H]`."""
    change_result(model, lambda images: images.transpose(-1, -2))


@mutant("FM702")
def height_and_width_swapped(model: TinyFlowModel) -> None:
    """`height` and `width` are exchanged in a positional call."""
    change_arguments(model, lambda given: {"height": given["width"], "width": given["height"]})


@mutant("FM702")
def only_the_native_size(model: TinyFlowModel) -> None:
    """Whatever size is asked for, the native one comes out."""
    change_arguments(model, lambda given: {"height": 256, "width": 256})


@mutant("FM702")
def results_nested(model: TinyFlowModel) -> None:
    """The pictures are stacked instead of concatenated: `[1, B, 3, H, W]`."""
    change_result(model, lambda images: images[None])


# FM703 out-of-range


@mutant("FM703")
def picture_overshoots(model: TinyFlowModel) -> None:
    """The contrast is raised beyond [-1, 1] and not clamped."""
    change_result(model, lambda images: 3 * images)


@mutant("FM703")
def picture_is_constant(model: TinyFlowModel) -> None:
    """The picture is replaced by its mean colour."""
    change_result(model, lambda images: images.mean((1, 2, 3), keepdim=True).expand_as(images))


@mutant("FM703")
def picture_saturates(model: TinyFlowModel) -> None:
    """The decoder's last layer is 1000 times too strong, so that every pixel is -1 or 1."""
    wrap(model.autoencoder.to_pixels, "forward", lambda forward, x: 1000 * forward(x))


# FM704 wrong-image-dtype


@mutant("FM704")
def picture_in_bytes(model: TinyFlowModel) -> None:
    """The picture is uint8."""
    change_result(model, lambda images: ((images + 1) * 127.5).round().to(torch.uint8))


@mutant("FM704")
def picture_in_float16(model: TinyFlowModel) -> None:
    """The picture is float16, in which 8-bit levels near the ends merge."""
    change_result(model, lambda images: images.half())


@mutant("FM715")
def picture_keeps_its_graph(model: TinyFlowModel) -> None:
    """The picture still hangs on the graph that made it."""
    wrap(model, "generate", lambda generate, **given: generate.__func__.__wrapped__(model, **given))
