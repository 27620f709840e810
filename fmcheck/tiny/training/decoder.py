"""The last stage of the training: the decoder learns to read what the flow makes of latents."""

import functools
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from fmcheck.tiny.model import TimeGrid, TinyFlowModel
from fmcheck.tiny.render import render
from fmcheck.tiny.scenes import example
from fmcheck.tiny.training.loop import Stage, generator_of
from fmcheck.tiny.training.stages import Recipe, difference, disturbed, training_prompts, windows_around

__all__ = ["decoder_stage", "flowed"]

# The sampler whose results the decoder learns to read: steps of its grid, and its strongest guidance.
STEPS, SCALE = 8, 1.0
BATCH = 64


@torch.no_grad()
def flowed(model: TinyFlowModel, cache: Tensor, seed: int) -> Tensor:
    """Where the sampler ends when it starts on the path to a cached latent, ``[count, C, h, w]``, float32 on the CPU.

    Every batch starts at another inner edge of the grid, under another guidance: the later, the more its ends are
    those latents; the earlier, the more they have of what the flow makes wrong.
    """
    ids, mask = training_prompts(model)
    text, grid, side, ends = model.text_encoder(ids, mask), model.time_grid(STEPS), model.config.native_size, []
    for first in range(0, len(cache), BATCH):
        generator = generator_of(seed, "flowed", first)
        x1 = cache[first : first + BATCH].to(model.device)
        prompts = (torch.arange(first, first + len(x1)) % len(ids)).to(model.device)
        z = model.text_encoder.reparametrise(text.mu[prompts], text.log_var[prompts], generator)
        edge = int(torch.randint(1, STEPS, (), generator=generator))
        rest = TimeGrid(grid.t_edges[edge:], grid.t_mid[edge:], grid.dt[edge:])
        x = model.interpolate(model.initial_state(z, side, side), x1, rest.t_edges[0].expand(len(x1)).to(x1.device))
        scale = SCALE * float(torch.rand((), generator=generator))
        ends.append(model.integrate(x, rest, scale).cpu())
    return torch.cat(ends)


def decoder_stage(model: TinyFlowModel, recipe: Recipe, cache: Callable[[], Tensor], seed: int) -> Stage:
    """The decoder once more, for half of the rows from where the flow ends instead of from the picture's latent.

    The flow leaves every cell a little beside what the encoder would say, each in its own direction, and outlines
    break where cells meet.  The encoder stays, so that what text branch and velocity network learned stays right.
    """
    autoencoder, side, cell = model.autoencoder, model.config.native_size, model.config.downsampling
    module = nn.ModuleList([autoencoder.from_latent, autoencoder.decoder, autoencoder.to_pixels])
    ends = functools.cache(lambda: flowed(model, cache()[: recipe.flowed_pictures], seed))

    def loss(generator: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        whole = int(torch.randint(5, (), generator=generator)) == 0
        rows = torch.randint(len(ends()), (recipe.whole if whole else recipe.crops,), generator=generator)
        of_flow = torch.rand(len(rows), 1, 1, 1, generator=generator) < 0.5
        z = torch.where(of_flow, ends()[rows], disturbed(cache()[rows], recipe, generator))
        placed = [example("train", row)[1] for row in rows.tolist()]
        extent = side if whole else recipe.crop
        # In cells: what the decoder sees at the border of a crop is what it sees at the border of a picture.
        corners = [
            (round(top / cell), round(left / cell)) for top, left, *_ in windows_around(placed, side, extent, generator)
        ]
        windows = [(top * cell, left * cell, extent, extent) for top, left in corners]
        images = render(placed, side, side, windows).to(model.device, memory_format=torch.channels_last)
        cells = extent // cell
        z = torch.stack(
            [row[:, top : top + cells, left : left + cells] for row, (top, left) in zip(z, corners, strict=True)]
        ).to(model.device)
        with torch.autocast(images.device.type, torch.bfloat16):
            decoded = autoencoder.decode(autoencoder.sample(z))
        return difference(decoded, images)

    return Stage("decoder", module, recipe.decoder_steps, recipe.learning_rate, loss)
