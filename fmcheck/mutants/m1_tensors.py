"""FM1: tensors of another shape, rank, dtype or device than declared, most of them in networks that do not mind."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fmcheck.mutants.loop import Halves, Loop
from fmcheck.mutants.registry import mutant
from fmcheck.mutants.surgery import bind, wrap
from fmcheck.tiny import TinyFlowModel


def _forgiving(model: TinyFlowModel) -> None:
    """A network that takes times and flags of any rank and dtype, as most networks do."""
    wrap(
        model.fm_transformers,
        "forward",
        lambda forward, x, times, null: forward(
            x, times.float().reshape(-1).expand(len(x)), null.bool().reshape(-1).expand(len(x))
        ),
    )


# FM101 wrong-time-rank


@mutant("FM101")
def time_is_a_scalar(model: TinyFlowModel) -> None:
    """The network is handed one time for all rows, without a batch axis, and expands it."""
    _forgiving(model)
    Halves(times=lambda times, _: times[0]).install(model)


@mutant("FM101")
def time_is_a_column(model: TinyFlowModel) -> None:
    """The network is handed `[N, 1]` times and flattens them."""
    _forgiving(model)
    Halves(times=lambda times, _: times[:, None]).install(model)


@mutant("FM101")
def training_time_is_a_column(model: TinyFlowModel) -> None:
    """Training passes `[N, 1]` times; only inference passes `[N]`."""
    _forgiving(model)
    # Only training times have an axis.
    wrap(model, "log_snr", lambda log_snr, t: log_snr(t)[:, None] if t.dim() else log_snr(t))


# FM102 wrong-time-dtype


@mutant("FM102")
def time_in_bfloat16(model: TinyFlowModel) -> None:
    """The time argument follows the network into bfloat16, where neighbouring times become one."""
    Halves(times=lambda times, _: times.bfloat16()).install(model)


@mutant("FM102")
def time_rounded_through_bfloat16(model: TinyFlowModel) -> None:
    """The time argument is float32 again, but its values have been through bfloat16."""
    Halves(times=lambda times, _: times.bfloat16().float()).install(model)


@mutant("FM102")
def time_truncated_to_integer(model: TinyFlowModel) -> None:
    """The time tensor is allocated with an integer dtype, so the fraction of every time is lost."""
    _forgiving(model)
    Halves(times=lambda times, _: times.long()).install(model)


# FM103 wrong-null-indicator


@mutant("FM103")
def null_indicator_in_float(model: TinyFlowModel) -> None:
    """The null indicator is a float tensor of zeros and ones."""
    _forgiving(model)
    Halves(null=lambda null, _: null.float()).install(model)


@mutant("FM103")
def null_indicator_is_a_column(model: TinyFlowModel) -> None:
    """The null indicator is `[N, 1]`."""
    _forgiving(model)
    Halves(null=lambda null, _: null[:, None]).install(model)


# FM104 wrong-state-shape


@mutant("FM104")
def state_transposed(model: TinyFlowModel) -> None:
    """The network sees height and width exchanged; nothing shows while pictures are square."""
    Halves(
        states=lambda x: torch.cat([x, x]).transpose(-1, -2),
        alone=lambda x: x.transpose(-1, -2),
        split=lambda v, batch: (v[:batch].transpose(-1, -2), v[batch:].transpose(-1, -2)),
        merged=lambda v: v.transpose(-1, -2),
    ).install(model)


@mutant("FM104")
def state_channels_last(model: TinyFlowModel) -> None:
    """The loop hands the network `[N, h, w, C]`, and the network turns it round on the way in and out."""
    wrap(
        model.fm_transformers,
        "forward",
        lambda forward, x, times, null: forward(x.movedim(-1, 1), times, null).movedim(1, -1),
    )
    Halves(
        states=lambda x: torch.cat([x, x]).movedim(1, -1),
        alone=lambda x: x.movedim(1, -1),
        split=lambda v, batch: (v[:batch].movedim(-1, 1), v[batch:].movedim(-1, 1)),
        merged=lambda v: v.movedim(-1, 1),
    ).install(model)


# FM105 wrong-velocity-shape


@mutant("FM105")
def velocity_of_one_channel(model: TinyFlowModel) -> None:
    """The network returns the mean over channels, `[N, 1, h, w]`, which broadcasts."""
    wrap(model.fm_transformers, "forward", lambda forward, *given: forward(*given).mean(dim=1, keepdim=True))


@mutant("FM105")
def velocity_of_one_column(model: TinyFlowModel) -> None:
    """The network returns one column of cells, `[N, C, h, 1]`, which broadcasts along the width."""
    wrap(model.fm_transformers, "forward", lambda forward, *given: forward(*given)[..., :1])


# FM106 wrong-latent-shape


@mutant("FM106")
def text_latent_unflattened(model: TinyFlowModel) -> None:
    """The text encoder returns `[B, queries, numbers]`, and the loop flattens it."""
    queries = model.config.meta_queries

    def unflattened(forward: Any, *given: Any, **named: Any) -> Any:
        latent = forward(*given, **named)
        return latent._replace(z=latent.z.unflatten(1, (queries, -1)))

    wrap(model.text_encoder, "forward", unflattened)
    wrap(model, "initial_state", lambda initial, z, h, w: initial(z.flatten(1), h, w))


@mutant("FM106")
def latent_squeezed_for_one_prompt(model: TinyFlowModel) -> None:
    """`sample` squeezes the batch axis away when there is one prompt."""
    codec = model.autoencoder
    wrap(codec, "sample", lambda sample, x: sample(x).squeeze(0))
    wrap(codec, "decode", lambda decode, x: decode(x if x.dim() == 4 else x[None]))


@mutant("FM106")
def moments_with_variance_channels(model: TinyFlowModel) -> None:
    """`encode_moments` returns mean and log-variance as `2C` channels, and training takes the first half."""
    wrap(model.autoencoder, "encode_moments", lambda encode, image: torch.cat([encode(image)] * 2, dim=1))
    wrap(model, "encode_images", lambda encode, images: encode(images).chunk(2, dim=1)[0])


@mutant("FM106")
def tiles_decoded_one_by_one(model: TinyFlowModel) -> None:
    """The left and the right half of the latent are decoded on their own, which leaves a seam."""
    codec = model.autoencoder

    def tiled(_: TinyFlowModel, x: Tensor) -> Tensor:
        return torch.cat([codec.decode(half) for half in codec.sample(x).chunk(2, dim=-1)], dim=-1)

    bind(model, "decode_state", tiled)


# FM107 wrong-decoded-shape


@mutant("FM107")
def decoder_loses_a_level(model: TinyFlowModel) -> None:
    """The decoder returns half of the size, and the picture is blown up afterwards."""
    wrap(model.autoencoder, "decode", lambda decode, x: F.avg_pool2d(decode(x), 2))
    wrap(model, "decode_state", lambda decode, x: F.interpolate(decode(x), scale_factor=2))


@mutant("FM107")
def decoder_adds_alpha(model: TinyFlowModel) -> None:
    """The decoder returns a fourth channel, which is cut off afterwards."""
    wrap(model.autoencoder, "decode", lambda decode, x: F.pad(decode(x), (0, 0, 0, 0, 0, 1), value=1.0))
    wrap(model, "decode_state", lambda decode, x: decode(x)[:, :3])


# FM108 wrong-device


class _Elsewhere(Tensor):
    """A CPU tensor that says it is on another device, so that a machine without one can have the defect."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("meta")


@mutant("FM108")
def mask_left_on_another_device(model: TinyFlowModel) -> None:
    """The attention mask stays behind on another device, and the text encoder fetches it."""
    encoder = model.text_encoder
    wrap(encoder, "forward", lambda forward, ids, mask, *rest: forward(ids, mask.as_subclass(Tensor), *rest))
    # A hook, because it runs between the loop and the observed forward.
    encoder.register_forward_pre_hook(lambda _, given: (given[0], given[1].as_subclass(_Elsewhere), *given[2:]))


# FM109 non-finite


@mutant("FM109")
def velocity_undefined_at_late_times(model: TinyFlowModel) -> None:
    """The network takes the logarithm of a margin that is negative at late times."""
    wrap(
        model.fm_transformers,
        "forward",
        lambda forward, x, times, null: (
            forward(x, times, null) + 0 * torch.log(times + 2.5)[:, None, None, None].to(model.fm_transformers.dtype)
        ),
    )


@mutant("FM109")
def decoder_overflows_in_half_precision(model: TinyFlowModel) -> None:
    """The decoder overflows in float16 to infinity, which a clamp hides in the picture."""
    wrap(model.autoencoder, "decode", lambda decode, x: (decode(x).half() * 1e5).float() / 1e5)
    wrap(model, "decode_state", lambda decode, x: decode(x).clamp(-1, 1))


# FM110 unasked-float64


@mutant("FM110")
def state_in_float64(model: TinyFlowModel) -> None:
    """The state is promoted to float64 on its way through the loop."""
    Loop(start=lambda x: x.double(), finish=lambda x, _: x.float()).install(model)


@mutant("FM110")
def decoder_in_float64(model: TinyFlowModel) -> None:
    """The decoder's post-processing promotes to float64, and the result is cast back."""
    wrap(model.autoencoder, "decode", lambda decode, x: decode(x).double())
    wrap(model, "decode_state", lambda decode, x: decode(x).float())


@mutant("FM110")
def text_noise_in_float64(model: TinyFlowModel) -> None:
    """The text latent is float64, as NumPy noise makes it."""

    def doubled(_: Any, mu: Tensor, log_var: Tensor, generator: torch.Generator | None) -> Tensor:
        eps = torch.randn(mu.shape, generator=generator, dtype=torch.float64)
        return mu + torch.exp(log_var.double() / 2) * eps.to(mu.device)

    bind(model.text_encoder, "reparametrise", doubled)
