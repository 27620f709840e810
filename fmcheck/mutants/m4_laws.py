"""FM4: starts whose numbers have another law in training than in sampling, or are not normal; a `sample` that draws."""

from typing import Any

import torch
from torch import Tensor

from fmcheck.mutants.noise_start import normal, with_noise_start
from fmcheck.mutants.registry import mutant, subject_mutant
from fmcheck.mutants.surgery import bind, wrap
from fmcheck.subject import Subject
from fmcheck.tiny import TinyFlowModel

# FM406 drifted-text-latent


def _reparametrised(model: TinyFlowModel, latent: Any) -> None:
    """The text latent is `latent(mu, sigma, eps, training)`."""

    def reparametrise(_: Any, mu: Tensor, log_var: Tensor, generator: torch.Generator) -> Any:
        eps = torch.randn(mu.shape, generator=generator).to(mu.device)
        return latent(mu, torch.exp(log_var / 2), eps, torch.is_grad_enabled())

    bind(model.text_encoder, "reparametrise", reparametrise)


@mutant("FM406")
def training_takes_the_mean_latent(model: TinyFlowModel) -> None:
    """Training starts at the mean of the text latent, sampling at a draw."""
    _reparametrised(model, lambda mu, sigma, eps, training: mu + sigma * eps * (not training))


@mutant("FM406")
def sampling_at_a_temperature(model: TinyFlowModel) -> None:
    """Sampling multiplies the noise of the text latent by 0.8, for nicer pictures."""
    _reparametrised(model, lambda mu, sigma, eps, training: mu + (1.0 if training else 0.8) * sigma * eps)


@mutant("FM406")
def training_takes_the_variance_for_the_width(model: TinyFlowModel) -> None:
    """Training multiplies the noise by the variance, sampling by its root."""
    _reparametrised(model, lambda mu, sigma, eps, training: mu + (sigma.square() if training else sigma) * eps)


@mutant("FM406")
def training_scales_the_mean_latent(model: TinyFlowModel) -> None:
    """Training brings the mean of the text latent to three quarters, and leaves its noise."""
    _reparametrised(model, lambda mu, sigma, eps, training: (0.75 if training else 1.0) * mu + sigma * eps)


@mutant("FM406")
def text_latent_normalised_in_training(model: TinyFlowModel) -> None:
    """Training normalises the latent of every prompt to a mean of 0 and a deviation of 1."""

    def normalised(mu: Tensor, sigma: Tensor, eps: Tensor, training: bool) -> Tensor:
        z = mu + sigma * eps
        return torch.nn.functional.layer_norm(z, z.shape[1:]) if training else z

    _reparametrised(model, normalised)


@mutant("FM406")
def one_noise_for_all_prompts(model: TinyFlowModel) -> None:
    """One noise is drawn for a batch and added to every row."""
    _reparametrised(model, lambda mu, sigma, eps, training: mu + sigma * eps[:1])


# FM407 wrong-noise


@subject_mutant("FM407")
def noise_copied_to_all_rows(subject: Subject) -> Subject:
    """One noise serves every row of a batch."""
    return with_noise_start(
        subject, "noise_copied_to_all_rows", lambda shape, *rest: normal((1, *shape[1:]), *rest).expand(shape).clone()
    )


@subject_mutant("FM407")
def noise_in_latent_units(subject: Subject) -> Subject:
    """Sampling multiplies the noise by the latent scale, as if it were a latent."""
    scale = subject.spec.latent_scale
    assert isinstance(scale, float)
    return with_noise_start(
        subject,
        "noise_in_latent_units",
        lambda shape, generator, training: normal(shape, generator, training) * (1.0 if training else scale),
    )


@subject_mutant("FM407")
def noise_from_rand(subject: Subject) -> Subject:
    """The noise is uniform, of the right mean and deviation."""
    return with_noise_start(
        subject,
        "noise_from_rand",
        lambda shape, generator, _: (torch.rand(shape, generator=generator) - 0.5) * 12**0.5,
    )


@subject_mutant("FM407")
def training_noise_with_an_offset(subject: Subject) -> Subject:
    """Training shifts all of its noise by a tenth."""
    return with_noise_start(
        subject,
        "training_noise_with_an_offset",
        lambda shape, generator, training: normal(shape, generator, training) + 0.1 * training,
    )


@subject_mutant("FM407")
def training_noise_too_narrow(subject: Subject) -> Subject:
    """Training multiplies its noise by 0.95."""
    return with_noise_start(
        subject,
        "training_noise_too_narrow",
        lambda shape, generator, training: normal(shape, generator, training) * (0.95 if training else 1.0),
    )


@subject_mutant("FM407")
def neighbours_share_noise(subject: Subject) -> Subject:
    """Half of the noise of every row is its neighbour's, and its deviation is right."""

    def shared(*given: Any) -> Tensor:
        own = normal(*given)
        return (own + own.roll(1, 0)) / 2**0.5

    return with_noise_start(subject, "neighbours_share_noise", shared)


# FM706 foreign-randomness


@mutant("FM706")
def sample_dithers(model: TinyFlowModel) -> None:
    """`sample` adds a little noise of torch's global generator to what it passes on."""
    wrap(model.autoencoder, "sample", lambda sample, x: sample(x) + 1e-8 * torch.randn_like(x))
