"""The nine defects of the development log of 2025-08-26, in its order; a line that names several faults has several."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from fmcheck.mutants.loop import Halves, Loop
from fmcheck.mutants.registry import mutant
from fmcheck.mutants.surgery import bind, wrap
from fmcheck.tiny import TinyFlowModel

# 1. `generate` called by the evaluation script: generator undefined, output not the conditional half, ...


@mutant("FM701")
def log1_generator_undefined(model: TinyFlowModel) -> None:
    """`generate` uses the name `generator`, which its function never got."""

    def fail(_: Any, *args: Any) -> None:
        raise NameError("name 'generator' is not defined")

    wrap(model.text_encoder, "reparametrise", fail)


@mutant("FM702")
def log1_output_not_cond_half(model: TinyFlowModel) -> None:
    """`generate` returns a picture for the unconditional rows too: `[2B, 3, H, W]`."""
    wrap(model, "decode_state", lambda decode, x: decode(x).repeat(2, 1, 1, 1))


@mutant("FM702")
def log1_output_channels_last(model: TinyFlowModel) -> None:
    """`generate` returns `[B, H, W, 3]`."""
    wrap(model, "generate", lambda generate, **given: generate(**given).movedim(1, -1))


@mutant("FM703")
def log1_output_out_of_range(model: TinyFlowModel) -> None:
    """`generate` returns grey levels from 0 to 255 instead of `[-1, 1]`."""
    wrap(model, "generate", lambda generate, **given: (generate(**given) + 1) * 127.5)


# 2. Inference through pixels_to_latents / latents_to_pixels, training through encode_moments -> sample -> decode.


@mutant("FM602")
def log2_latents_to_pixels(model: TinyFlowModel) -> None:
    """Inference decodes through a helper of its own, which knows nothing of `sample`, scale and shift."""
    codec = model.autoencoder

    def latents_to_pixels(_: TinyFlowModel, x: Tensor) -> Tensor:
        hidden = codec.decoder(codec.from_latent(x))
        return torch.tanh(nn.functional.pixel_shuffle(codec.to_pixels(hidden), 8))

    bind(model, "decode_state", latents_to_pixels)


# 3. A randomly initialised projection of the initial state where a reshape was right.


def _projection(size: int, seed: int) -> Tensor:
    noise = torch.randn(size, size, generator=torch.Generator().manual_seed(seed))
    return noise / math.sqrt(size)


@mutant("FM401")
def log3_projection_instead_of_reshape(model: TinyFlowModel) -> None:
    """The text latent goes through a random linear layer although its size fits."""
    weight = _projection(model.config.text_latent, seed=3).to(model.device)
    wrap(model, "initial_state", lambda initial, z, h, w: initial(z @ weight, h, w))


@mutant("FM403")
def log3_projection_made_in_generate(model: TinyFlowModel) -> None:
    """The random layer that maps the text latent is created during inference."""
    channels = model.config.latent_channels

    def project(initial: Any, z: Tensor, height: int, width: int) -> Any:
        return nn.Conv2d(channels, channels, 1)(initial(z, height, width))

    wrap(model, "initial_state", project)


# 4. log_snr passed as [B, 1] or [B, 1, 1, 1] to a network that insists on one dimension.


@mutant("FM101")
def log4_log_snr_column(model: TinyFlowModel) -> None:
    """The time argument is `[N, 1]`, and the network refuses it."""
    Halves(times=lambda times, _: times[:, None]).install(model)


@mutant("FM101")
def log4_log_snr_four_dimensions(model: TinyFlowModel) -> None:
    """The time argument is `[N, 1, 1, 1]`, and the network refuses it."""
    Halves(times=lambda times, _: times[:, None, None, None]).install(model)


# 5. A random t per step instead of the deterministic quantile grid.


@mutant("FM306")
def log5_random_time_per_step(model: TinyFlowModel) -> None:
    """Every step evaluates the network at a freshly drawn time."""
    Loop(steps=lambda grid: [(torch.rand((), device=dt.device), dt) for dt in grid.dt]).install(model)


# 6. null_indicator / log_snr lengths wrong in the 2B batch; halves mixed up.


@mutant("FM103")
def log6_null_indicator_of_b_rows(model: TinyFlowModel) -> None:
    """The null indicator has B entries for a batch of 2B rows."""
    Halves(null=lambda null, batch: null[:batch]).install(model)


@mutant("FM101")
def log6_log_snr_of_b_rows(model: TinyFlowModel) -> None:
    """The time argument has B entries for a batch of 2B rows."""
    Halves(times=lambda times, batch: times[:batch]).install(model)


@mutant("FM201")
def log6_halves_mixed_up(model: TinyFlowModel) -> None:
    """The null indicator marks the first half, while the combination takes the second for unconditional."""
    Halves(null=lambda null, batch: ~null if len(null) > batch else null).install(model)


@mutant("FM202")
def log6_rows_interleaved(model: TinyFlowModel) -> None:
    """The states are doubled row by row (a, a, b, b), while all else expects one half after the other."""
    Halves(states=lambda x: x.repeat_interleave(2, dim=0)).install(model)


# 7. Guidance mixed into the initial state on top of, or instead of, the velocity.


def _guided_start(model: TinyFlowModel, x: Tensor, scale: float) -> Tensor:
    ids, mask = model.tokenizer([""] * len(x))
    summary = model.text_encoder.encoder(ids.to(x.device), mask.to(x.device))
    empty = model.text_encoder.to_mu(summary).flatten(1)
    height, width = (32 * size for size in x.shape[-2:])
    return (1 + scale) * x - scale * model.initial_state(empty, height, width)


@mutant("FM206")
def log7_guidance_in_initial_state_too(model: TinyFlowModel) -> None:
    """Guidance is applied to the initial state on top of the velocity."""
    wrap(model, "integrate", lambda run, x, grid, scale: run(_guided_start(model, x, scale), grid, scale))


@mutant("FM206")
def log7_guidance_in_initial_state_only(model: TinyFlowModel) -> None:
    """Guidance is applied to the initial state instead of the velocity."""
    wrap(model, "integrate", lambda run, x, grid, scale: run(_guided_start(model, x, scale), grid, 0.0))


# 8. x_cat or v_all decoded instead of the integrated conditional x.


@mutant("FM601")
def log8_x_cat_decoded(model: TinyFlowModel) -> None:
    """What is decoded is the network's doubled input of the last step."""
    wrap(model, "generate", lambda generate, **given: generate(**given)[: len(given["input_ids"]) // 2])
    Loop(finish=lambda x, made: torch.cat([made[-1].start, made[-1].start])).install(model)


@mutant("FM601")
def log8_v_all_decoded(model: TinyFlowModel) -> None:
    """What is decoded is the last velocity."""
    Loop(finish=lambda x, made: made[-1].velocity).install(model)


# 9. Resolutions mixed between training and evaluation, so that the mapping layer is rebuilt again and again.


@mutant("FM404")
def log9_mapping_rebuilt_for_every_size(model: TinyFlowModel) -> None:
    """The layer that maps the text latent is rebuilt whenever the resolution differs from that of the last call."""
    built: dict[str, Any] = {"size": None, "times": 0}

    def mapped(initial: Any, z: Tensor, height: int, width: int) -> Tensor:
        if built["size"] != (height, width):
            built.update(size=(height, width), times=built["times"] + 1)
            # Seeded by the count: in a long process the global generator has moved on between two rebuilds.
            built["weight"] = _projection(model.config.text_latent, seed=built["times"]).to(z.device)
        return initial(z @ built["weight"], height, width)  # type: ignore[no-any-return]

    wrap(model, "initial_state", mapped)


@mutant("FM403")
def log9_fallback_made_again(model: TinyFlowModel) -> None:
    """Every size that needs the fallback gets a new fallback layer, registered on the model."""

    def remade(initial: Any, z: Tensor, height: int, width: int) -> Tensor:
        if z.shape[1] != 32 * (height // 32) * (width // 32):
            model.latent_fallback = model._near_identity(model.config.latent_channels).to(z.device)
        return initial(z, height, width)  # type: ignore[no-any-return]

    wrap(model, "initial_state", remade)
