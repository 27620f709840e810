"""FM208: guidance whose sum over the loop is another formula than the declared one."""

from torch import Tensor

from fmcheck.mutants.loop import Loop
from fmcheck.mutants.registry import mutant
from fmcheck.mutants.surgery import bind
from fmcheck.tiny import TinyFlowModel
from fmcheck.tiny.model import TimeGrid


@mutant("FM208")
def weight_one_too_large(model: TinyFlowModel) -> None:
    """The scale is taken for the s of `u + s (c - u)` and one is added once more."""
    bind(model, "combine", lambda _, c, u, w: (2 + w) * c.float() - (1 + w) * u.float())


@mutant("FM208")
def coefficients_swapped(model: TinyFlowModel) -> None:
    """The coefficients of the two velocities are exchanged."""
    bind(model, "combine", lambda _, c, u, w: (1 + w) * u.float() - w * c.float())


@mutant("FM208")
def weight_halved(model: TinyFlowModel) -> None:
    """Half of the weight is used."""
    bind(model, "combine", lambda _, c, u, w: (1 + w / 2) * c.float() - w / 2 * u.float())


@mutant("FM208")
def weight_a_thousandth_off(model: TinyFlowModel) -> None:
    """The difference of the branches is multiplied by a weight that is a thousandth too large."""
    bind(model, "combine", lambda _, c, u, w: c.float() + 1.001 * w * (c.float() - u.float()))


@mutant("FM208")
def weight_spread_over_the_steps(model: TinyFlowModel) -> None:
    """The weight is right for the usual four steps and smaller where there are more."""

    def integrate(found: TinyFlowModel, x: Tensor, grid: TimeGrid, scale: float) -> Tensor:
        return Loop().run(found, x, grid, scale * min(1.0, 4 / len(grid.dt)))

    bind(model, "integrate", integrate)


@mutant("FM208")
def guided_in_the_middle_only(model: TinyFlowModel) -> None:
    """Where there are many steps, guidance acts between t = 0.1 and t = 0.9 only."""

    def integrate(found: TinyFlowModel, x: Tensor, grid: TimeGrid, scale: float) -> Tensor:
        for t, dt in zip(grid.t_mid, grid.dt, strict=True):
            cond, uncond = found.velocities(x, t, guided=scale != 0)
            outside = len(grid.dt) >= 10 and not 0.1 < float(t) < 0.9
            x = x + dt * (cond.float() if uncond is None or outside else found.combine(cond, uncond, scale))
        return x

    bind(model, "integrate", integrate)


@mutant("FM208")
def bias_beside_the_velocities(model: TinyFlowModel) -> None:
    """A constant is added to the guided velocity."""
    bind(model, "combine", lambda _, c, u, w: (1 + w) * c.float() - w * u.float() + 0.01)
