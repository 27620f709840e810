"""FM909: training that asks for something else than what carries the sampler to the data."""

from torch import Tensor

from fmcheck.mutants.loop import Loop
from fmcheck.mutants.registry import mutant
from fmcheck.mutants.surgery import bind, wrap
from fmcheck.tiny import TinyFlowModel


@mutant("FM909")
def training_runs_from_data_to_text(model: TinyFlowModel) -> None:
    """Training calls the data the source: `x_t = (1 - t) x1 + t x0` with the target `x0 - x1`."""
    wrap(model, "interpolate", lambda original, x0, x1, t: original(x1, x0, t))
    wrap(model, "velocity_target", lambda original, x0, x1: original(x1, x0))


@mutant("FM909")
def target_is_noise_minus_data(model: TinyFlowModel) -> None:
    """The target is `x0 - x1`, the convention of flows in sigma, and the sampler integrates in t."""
    bind(model, "velocity_target", lambda _, x0, x1: x0 - x1)


@mutant("FM909")
def target_predicts_the_data(model: TinyFlowModel) -> None:
    """The network learns the data end, and the sampler takes it for a velocity."""
    bind(model, "velocity_target", lambda _, x0, x1: x1)


@mutant("FM909")
def target_predicts_the_source(model: TinyFlowModel) -> None:
    """The network learns the source end, and the sampler takes it for a velocity."""
    bind(model, "velocity_target", lambda _, x0, x1: x0)


@mutant("FM909")
def target_a_hundredth_short(model: TinyFlowModel) -> None:
    """The target is a hundredth short of the way to the data."""
    wrap(model, "velocity_target", lambda original, *ends: 0.99 * original(*ends))


@mutant("FM909")
def target_with_another_sigma_min(model: TinyFlowModel) -> None:
    """Path and target of training leave a hundredth of the source, as if sigma_min were 0.01."""

    def interpolate(_: TinyFlowModel, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
        share = t[:, None, None, None]
        return (1 - 0.99 * share) * x0 + share * x1

    bind(model, "interpolate", interpolate)
    bind(model, "velocity_target", lambda _, x0, x1: x1 - 0.99 * x0)


@mutant("FM909")
def sampler_runs_backwards(model: TinyFlowModel) -> None:
    """The sampler subtracts the velocity, as loops in descending sigma do."""
    Loop(update=lambda x, dt, v: x - dt * v).install(model)
