"""FM5 on hand-written loops whose update is wrong in one place."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.rules.loops import Pipeline, Style, but, caught, clean, failing, judge, outcomes, silent


def after(change: Any) -> type[Pipeline]:
    """A pipeline that applies `change(new state, old state)` after every step."""

    class After(Pipeline):
        def step(self, x: Tensor, start: Tensor, end: Tensor, scale: float, last: bool) -> Tensor:
            return change(super().step(x, start, end, scale, last), x)

    return After


def moved_by(change: Any) -> type[Pipeline]:
    """A pipeline whose steps use `change(all velocities so far)`."""

    class MovedBy(Pipeline):
        def integrate(self, x: Tensor, steps: int, scale: float) -> Tensor:
            self.made: list[Tensor] = []
            return super().integrate(x, steps, scale)

        def velocity(self, x: Tensor, t: Tensor, scale: float) -> Tensor:
            self.made.append(super().velocity(x, t, scale))
            return change(self.made)

    return MovedBy


class StaleUncond(Pipeline):
    def integrate(self, x: Tensor, steps: int, scale: float) -> Tensor:
        self.kept: Tensor | None = None
        return super().integrate(x, steps, scale)

    def combine(self, cond: Tensor, uncond: Tensor | None, scale: float) -> Tensor:
        stale, self.kept = uncond if self.kept is None else self.kept, uncond
        return super().combine(cond, stale, scale)


class LastChannel(Pipeline):
    def combine(self, cond: Tensor, uncond: Tensor | None, scale: float) -> Tensor:
        v = super().combine(cond, uncond, scale).clone()
        v[:, -1] = cond[:, -1]
        return v


class RowScale(Pipeline):
    def combine(self, cond: Tensor, uncond: Tensor | None, scale: float) -> Tensor:
        w = torch.linspace(scale, scale + 1, len(cond)).reshape(-1, 1, 1, 1)
        return (1 + w) * cond - w * uncond


class Rescaled(Pipeline):
    def combine(self, cond: Tensor, uncond: Tensor | None, scale: float) -> Tensor:
        v = super().combine(cond, uncond, scale)
        return v * (cond.std((1, 2, 3), keepdim=True) / v.std((1, 2, 3), keepdim=True))


class Columns(Pipeline):
    """A factor a row that is spread along the width where the sizes agree."""

    def step(self, x: Tensor, start: Tensor, end: Tensor, scale: float, last: bool) -> Tensor:
        factor = torch.linspace(0.9, 1.1, x.shape[-1])
        return x + (end - start) * factor * self.velocity(x, (start + end) / 2, scale)


class SameState(Pipeline):
    """Explicit midpoint whose second stage forgets to move the state."""

    def step(self, x: Tensor, start: Tensor, end: Tensor, scale: float, last: bool) -> Tensor:
        self.velocity(x, start, scale)
        return x + (end - start) * self.velocity(x, (start + end) / 2, scale)


def noise(y: Tensor, _: Tensor) -> Tensor:
    return y + 0.05 * torch.randn(y.shape, generator=torch.Generator().manual_seed(1))


def masked(y: Tensor, x: Tensor) -> Tensor:
    return torch.cat([x[:, :, :1], y[:, :, 1:]], 2)


UPDATES = [
    ("clipped", after(lambda y, _: y.clamp(-1.5, 1.5)), "the state is clipped to [-1.5, 1.5]"),
    ("recentred", after(lambda y, _: y - y.mean((1, 2, 3), keepdim=True)), "shifted by"),
    ("normalised", after(lambda y, _: y / y.std((1, 2, 3), keepdim=True)), "multiplied by"),
    ("damped", after(lambda y, _: 0.999 * y), "multiplied by 0.999 to 0.999"),
    ("noised", after(noise), "something else is added to the state"),
    ("masked", after(masked), "elements of the state stand still (a mask)"),
    ("rows", moved_by(lambda made: made[-1].roll(1, 0)), "row i is moved by the velocity of row i - 1"),
    ("momentum", moved_by(lambda made: 0.9 * made[-1] + 0.1 * made[-2 if len(made) > 1 else -1]), "v_cond[0], v_unc"),
    (
        "previous",
        moved_by(lambda made: made[-2] if len(made) > 1 else made[-1]),
        "combination of v_cond[0], v_uncond[0]",
    ),
    ("stale uncond", StaleUncond, "combination of v_uncond[0], v_cond[1]"),
    ("channel", LastChannel, "guidance differs between channels"),
    ("row scale", RowScale, "guidance differs between rows: its weight goes from 2.5 to 3.5"),
    ("rescaled", Rescaled, "rescaled guidance, or one scale a row? No field of FlowSpec declares those"),
    ("columns", Columns, "the step differs between columns"),
    ("bf16 velocity", moved_by(lambda made: made[-1].bfloat16().float()), "rounded to a short dtype"),
]


@pytest.mark.parametrize(("pipeline", "cause"), [row[1:] for row in UPDATES], ids=[row[0] for row in UPDATES])
def test_a_wrong_update_is_explained(pipeline: type[Pipeline], cause: str) -> None:
    found = failing(pipeline)
    caught(found["FM501"], cause)
    assert set(found) <= {"FM501", "FM601", "FM303", "FM305", "FM203"}


@pytest.mark.parametrize("solver", ["euler", "midpoint", "heun"])
@pytest.mark.parametrize("state", ["float32", "float64"])
def test_correct_loops_pass(solver: str, state: str) -> None:
    for outcome in outcomes(["FM501", "FM502"], spec=but(solver=solver), style=Style(state=state)).values():
        clean(outcome)


def test_a_second_stage_at_the_first_state_is_named() -> None:
    found = failing(SameState, spec=but(solver="midpoint"))
    assert set(found) == {"FM501"}
    caught(found["FM501"], "the second stage is evaluated at the state of the first")


def test_a_step_that_is_thrown_away_is_named() -> None:
    caught(judge("FM501", after(lambda _, x: x)), "the update is computed and thrown away")


def test_a_step_below_the_rounding_of_the_state_is_no_finding() -> None:
    assert not failing(Pipeline, style=Style(x_size=1e3, v_size=1e-6))


def untrained(change: Any) -> type[Pipeline]:
    class Untrained(after(change)):
        def field(self, x: Tensor, t: Tensor, null: Tensor) -> Tensor:
            return torch.zeros_like(x)

    return Untrained


def test_zero_velocity_must_move_nothing() -> None:
    clean(judge("FM501", untrained(lambda y, _: y)))
    caught(judge("FM501", untrained(lambda y, _: 1.001 * y)), "the velocity is zero and the state changes by")


# FM502: the state in a short dtype.


def test_a_state_rounded_in_the_loop_is_seen_although_it_is_cast_back() -> None:
    caught(judge("FM502", after(lambda y, _: y.bfloat16().float())), "representable in bfloat16", "cast back")
    caught(judge("FM502", after(lambda y, _: y.half().float())), "representable in float16")


def both_dtypes(pipeline: type[Pipeline], style: Style, **fields: Any) -> Any:
    return judge("FM502", pipeline, style=style, dtypes=("float32", "bfloat16"), **fields)


def test_a_state_held_by_a_bfloat16_network_is_caught_or_declared() -> None:
    class Short(Pipeline):
        def initial(self, z: Tensor, size: tuple[int, int, int]) -> Tensor:
            return super().initial(z, size).to(self.dtype)

        def step(self, x: Tensor, start: Tensor, end: Tensor, scale: float, last: bool) -> Tensor:
            return super().step(x, start, end, scale, last).to(self.dtype)

        def integrate(self, x: Tensor, steps: int, scale: float) -> Tensor:
            edges = self.edges(steps)
            for k in range(steps):
                x = self.step(x, edges[k], edges[k + 1], scale, k + 1 == steps)
            return x

    caught(both_dtypes(Short, Style()), "bfloat16, expected float32", "declare state_dtype")
    silent(both_dtypes(Short, Style(), spec=but(state_dtype="network")), "a state in the network's dtype")


def test_casts_for_the_network_or_for_the_autoencoder_are_no_short_state() -> None:
    # Where both are cast, the few digits that are seen need not tell a float32 state from a short one.
    class ShortCodec(Pipeline):
        def finish(self, x: Tensor) -> Tensor:
            return super().finish(x.to(self.dtype))

    clean(both_dtypes(Pipeline, Style(cast=True)))
    clean(both_dtypes(ShortCodec, Style(cast=False)))
