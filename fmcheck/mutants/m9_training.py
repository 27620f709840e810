"""FM9: training that asks for something else than sampling uses."""

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fmcheck.mutants.registry import mutant, subject_mutant
from fmcheck.mutants.surgery import bind, wrap
from fmcheck.subject import Subject
from fmcheck.tiny import TinyConfig, TinyFlowModel, build


def _training_times(model: TinyFlowModel, change: Any) -> None:
    """Change what the network is told in training only: there times have an axis, in the sampler they have none."""
    wrap(model, "log_snr", lambda log_snr, t: change(log_snr, t) if t.dim() else log_snr(t))


# FM901 train-time-argument


@mutant("FM901")
def training_log_snr_of_1_minus_t(model: TinyFlowModel) -> None:
    """Training tells the network the log-SNR of `1 - t`."""
    _training_times(model, lambda log_snr, t: log_snr(1 - t))


@mutant("FM901")
def training_told_t(model: TinyFlowModel) -> None:
    """Training tells the network t itself."""
    _training_times(model, lambda log_snr, t: t)


@mutant("FM901")
def training_times_of_other_rows(model: TinyFlowModel) -> None:
    """In training every row is told the time of the row before it."""
    _training_times(model, lambda log_snr, t: log_snr(t.roll(1)))


# FM902 train-time-distribution


@mutant("FM902")
def uniform_training_times(model: TinyFlowModel) -> None:
    """Training times are uniform, while the sampler's grid follows the logit-normal law."""
    bind(model, "sample_times", lambda _, batch, generator: torch.rand(batch, generator=generator))


@mutant("FM902")
def one_time_for_the_whole_batch(model: TinyFlowModel) -> None:
    """Every rank draws one time for all of its rows."""
    wrap(model, "sample_times", lambda times, batch, generator: times(1, generator).expand(batch))


@mutant("FM902")
def training_times_too_spread(model: TinyFlowModel) -> None:
    """Training times have a standard deviation of 1.5 before the sigmoid."""
    wrap(model, "sample_times", lambda times, *given: torch.sigmoid(1.5 * torch.logit(times(*given))))


# FM903 train-path


@mutant("FM903")
def path_runs_backwards(model: TinyFlowModel) -> None:
    """The path has the picture at t = 0 and the text at t = 1, while target and sampler go the other way."""
    wrap(model, "interpolate", lambda interpolate, x0, x1, t: interpolate(x1, x0, t))


@mutant("FM903")
def path_on_a_circle(model: TinyFlowModel) -> None:
    """The path is `cos x0 + sin x1`, the target that of the straight line."""

    def circle(_: Any, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
        angle = (torch.pi / 2 * t)[:, None, None, None]
        return angle.cos() * x0 + angle.sin() * x1

    bind(model, "interpolate", circle)


@mutant("FM903")
def path_starts_from_noise(model: TinyFlowModel) -> None:
    """Training starts the path from normal noise, the sampler from the text latent."""
    seed = 9

    def noisy(interpolate: Any, x0: Tensor, x1: Tensor, t: Tensor) -> Any:
        noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(seed)).to(x0.device)
        return interpolate(noise, x1, t)

    wrap(model, "interpolate", noisy)


@mutant("FM901")
def path_with_the_times_of_one_row(model: TinyFlowModel) -> None:
    """The time of the first row is broadcast to all rows of the path."""
    wrap(model, "interpolate", lambda interpolate, x0, x1, t: interpolate(x0, x1, t[:1]))


# FM904 train-target


@mutant("FM904")
def target_negated(model: TinyFlowModel) -> None:
    """The target is source minus data."""
    wrap(model, "velocity_target", lambda target, *given: -target(*given))


@mutant("FM904")
def target_is_the_data(model: TinyFlowModel) -> None:
    """The target is the data end instead of the velocity."""
    wrap(model, "velocity_target", lambda _, x0, x1: x1)


@mutant("FM904")
def target_is_the_source(model: TinyFlowModel) -> None:
    """The target is the source end, as a noise prediction would have it."""
    wrap(model, "velocity_target", lambda _, x0, x1: x0)


@mutant("FM904")
def target_of_other_rows(model: TinyFlowModel) -> None:
    """The target belongs to another row than the path."""
    wrap(model, "velocity_target", lambda target, *given: target(*given).roll(1, 0))


@subject_mutant("FM904")
def target_without_sigma_min(subject: Subject) -> Subject:
    """The path keeps a width of 0.2 around the data, and the target knows nothing of it."""
    config = TinyConfig(sigma_min=0.2)

    def build_wide(case: Any) -> TinyFlowModel:
        model = build(case.device, case.torch_dtype, config)
        wrap(model, "velocity_target", lambda _, x0, x1: x1 - x0)
        return model

    spec = replace(subject.spec, sigma_min=0.2)
    return subject.but(name="tiny with target_without_sigma_min", build=build_wide, spec=spec)


# FM905 train-null


@mutant("FM905")
def never_null(model: TinyFlowModel) -> None:
    """No row ever trains the unconditional velocity."""
    wrap(model, "sample_null", lambda null, *given: torch.zeros_like(null(*given)))


@mutant("FM905")
def null_half_of_the_time(model: TinyFlowModel) -> None:
    """Half of the rows train the unconditional velocity."""
    bind(model, "sample_null", lambda _, batch, generator: torch.rand(batch, generator=generator) < 0.5)


@mutant("FM905")
def null_probability_inverted(model: TinyFlowModel) -> None:
    """Nine rows in ten train the unconditional velocity."""
    wrap(model, "sample_null", lambda null, *given: ~null(*given))


@mutant("FM905")
def null_targets_not_permuted(model: TinyFlowModel) -> None:
    """Null rows keep their own picture, so the unconditional velocity learns the conditional one."""
    bind(model, "permute_null_targets", lambda _, x1, null, generator: x1)


@mutant("FM905")
def null_flags_of_other_rows(model: TinyFlowModel) -> None:
    """The rows whose pictures are permuted are not the ones that are flagged."""
    wrap(model, "permute_null_targets", lambda permute, x1, null, generator: permute(x1, null.roll(1), generator))


# FM906 train-autoencoder


@mutant("FM906")
def pixels_folded_instead_of_encoded(model: TinyFlowModel) -> None:
    """Training makes its latents with a helper of its own, and the sampler decodes what `encode` would give."""

    def pixels_to_latents(_: Any, images: Tensor) -> Tensor:
        folded = F.pixel_unshuffle(images, 32)
        return folded.reshape(len(images), 32, -1, *folded.shape[2:]).mean(dim=2)

    bind(model, "encode_images", pixels_to_latents)


@mutant("FM906")
def latents_unscaled_in_training(model: TinyFlowModel) -> None:
    """Training takes scale and shift off again after encoding."""
    wrap(model, "encode_images", lambda encode, images: model.autoencoder.sample(encode(images)))


@mutant("FM906")
def pictures_encoded_in_unit_range(model: TinyFlowModel) -> None:
    """Training encodes pictures in [0, 1] with an autoencoder made for [-1, 1]."""
    wrap(model, "encode_images", lambda encode, images: encode((images + 1) / 2))


# FM907 train-randomness


@mutant("FM907")
def training_times_from_the_global_generator(model: TinyFlowModel) -> None:
    """Training times come from torch's global generator."""
    bind(model, "sample_times", lambda _, batch, generator: torch.sigmoid(torch.randn(batch)))


@mutant("FM907")
def permutation_from_the_global_generator(model: TinyFlowModel) -> None:
    """Null rows are permuted by torch's global generator."""
    wrap(
        model,
        "permute_null_targets",
        lambda permute, x1, null, _: permute(x1, null, torch.default_generator),
    )


@mutant("FM907")
def training_seeds_the_process(model: TinyFlowModel) -> None:
    """Every training step seeds the global generator."""
    wrap(model, "training_loss", lambda loss, *given, **named: (torch.manual_seed(1), loss(*given, **named))[1])


@mutant("FM905")
def null_rows_without_loss(model: TinyFlowModel) -> None:
    """Rows that are marked unconditional are left out of the loss."""

    def forward(call: Any, x: Tensor, times: Tensor, null: Tensor) -> Tensor:
        v = call(x, times, null)
        if not torch.is_grad_enabled():
            return v  # type: ignore[no-any-return]
        # What is cut off from the graph here is what a mask in the loss would take out of its mean.
        v.register_hook(lambda gradient: gradient * ~null[:, None, None, None])
        return v  # type: ignore[no-any-return]

    wrap(model.fm_transformers, "forward", forward)


@mutant("FM905")
def null_rows_are_the_first(model: TinyFlowModel) -> None:
    """The first tenth of every batch is unconditional."""
    share = model.config.null_probability
    bind(model, "sample_null", lambda _, batch, generator: torch.arange(batch) < round(batch * share))


@mutant("FM905")
def null_rows_are_the_earliest(model: TinyFlowModel) -> None:
    """Times and null flags come from one random number, so the unconditional rows are those near the source."""
    drawn: list[Tensor] = []

    def times(sample: Any, batch: int, generator: torch.Generator) -> Tensor:
        drawn[:] = [sample(batch, generator)]
        return drawn[0]

    wrap(model, "sample_times", times)
    normal = torch.distributions.Normal(model.config.grid_mean, model.config.grid_std)
    limit = torch.sigmoid(normal.icdf(torch.tensor(model.config.null_probability)))  # type: ignore[no-untyped-call]
    bind(model, "sample_null", lambda _, batch, generator: drawn[0] < limit)


# FM908 train-text-mask


@mutant("FM908")
def training_mask_of_ones(model: TinyFlowModel) -> None:
    """Training passes a mask of ones, so that padding is read as words."""

    def blind(loss: Any, images: Tensor, input_ids: Tensor, attention_mask: Tensor, generator: torch.Generator) -> Any:
        return loss(images, input_ids, torch.ones_like(attention_mask), generator)

    wrap(model, "training_loss", blind)


@mutant("FM908")
def training_reads_four_tokens(model: TinyFlowModel) -> None:
    """Training cuts every prompt after its fourth token."""

    def cut(loss: Any, images: Tensor, input_ids: Tensor, attention_mask: Tensor, generator: torch.Generator) -> Any:
        return loss(images, input_ids[:, :4], attention_mask[:, :4], generator)

    wrap(model, "training_loss", cut)
