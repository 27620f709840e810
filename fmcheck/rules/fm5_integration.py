"""FM5: integration: the update of the state, and its precision."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from fmcheck.plan import Run
from fmcheck.record.grouping import Evaluation
from fmcheck.record.reading import Move
from fmcheck.rules.evidence import by_step, exact, require, require_finite_move, within
from fmcheck.rules.fm5_explain import explain_update
from fmcheck.rules.registry import Check, rule
from fmcheck.tensors import all_finite
from fmcheck.tolerance import fit_bound, move_bound, step_bound, sums_show_digits, unit_roundoff


@rule("FM501", "wrong-update", conventions=("prediction", "solver"))
def wrong_update(run: Run) -> Iterator[Check]:
    """Between two evaluations the state changes by the velocity and by nothing else: `x_end - x_start = a c + b u`.

    How it goes wrong: the state is rescaled, clipped, normalised or noised in the loop, guidance acts on some
    channels only, rows or steps are mixed up, the old velocity is used, the state is kept in a short dtype.

    Checked: what is left of every change after its best fit by the recorded velocities, elementwise against the
    rounding of the update; and that a step with a velocity moves the state at all. Which coefficients the fit finds is
    FM203 and FM303; the last step is FM601.

    Fix: `x = x + dt * v` in float32. Source: Euler, midpoint and Heun steps of `x' = v(x, t)`, arXiv 2210.02747.
    """
    moves = [move for move in run.reading.moves if not move.last]
    require(bool(moves), "one step only: its update is judged by FM601")
    for move in moves:
        require_finite_move(move)
        idle = not bool(move.cond.any()) and (move.uncond is None or not bool(move.uncond.any()))
        # A prediction of an end is turned into a velocity by the loop, from a state that may not be seen uncast.
        if idle and move.spec.prediction in ("velocity", "reverse_velocity"):
            yield _stands_still(run, move)
        if not move.coefficients.determined:
            continue
        used, allowed = worst(move.leftover, fit_bound(move))
        yield within(
            used,
            allowed,
            f"{used:.3g} of the state's change is no combination of the velocities, rounding allows {allowed:.3g}",
            where=by_step(run, move.step),
            diagnosis=partial(_explain, run, move),
        )
        yield exact(
            bool(move.delta.any()) or _too_small_to_move(run, move),
            "the state stands still although the velocity is not zero",
            where=by_step(run, move.step),
            diagnosis="the update is computed and thrown away"
            if move.closes
            else "the second stage is evaluated at the state of the first",
        )


def _stands_still(run: Run, move: Move) -> Check:
    """Zero velocity (an untrained output layer) moves nothing, exactly."""
    change = float(move.delta.abs().max())
    return exact(
        change == 0,
        f"the velocity is zero and the state changes by {change:.3g}, allowed 0 (bitwise)",
        where=by_step(run, move.step),
        diagnosis=lambda: explain_update(move),
    )


def _too_small_to_move(run: Run, move: Move) -> bool:
    """Whether rounding may swallow the whole step, as it does where the state is a million times the velocity."""
    if move.step >= len(run.reading.steps_dt):
        return False
    error, bound = step_error(run, move)
    return bool((error <= bound).all())


def _explain(run: Run, move: Move) -> str:
    return explain_update(move, before_end(run, move))


def before_end(run: Run, move: Move) -> list[Evaluation]:
    """The evaluations that were made when the move ended; the last twelve, which is more than any method remembers."""
    stages = run.subject.spec.stages
    return run.reading.evaluations[: move.step * stages + move.stage + 1][-12:]


def worst(error: Tensor, allowed: Tensor) -> tuple[float, float]:
    """Error and bound at the element where their ratio is largest."""
    tiny = torch.finfo(torch.float64).tiny
    index = int((error / allowed.clamp_min(tiny)).nan_to_num(nan=float("inf")).argmax())
    return float(error.flatten()[index]), float(allowed.flatten()[index])


@rule("FM502", "low-precision-state", conventions=("state_dtype",))
def low_precision_state(run: Run) -> Iterator[Check]:
    """The integrated state is held in float32, also when the network runs in a shorter dtype.

    How it goes wrong: `x = x + dt * v` in bfloat16 keeps 8 bits, so that the small steps at both ends of the grid
    vanish; a cast back to the network's dtype at the end of every step.

    Checked: the dtype of the state where it leaves the loop (and, for a float32 network, wherever it is seen), and
    that its values are not all representable in bfloat16 or float16 once the first step is made. A state that is cast
    for the call of a bfloat16 network alone is right and is told apart by its last value.

    Fix: `x = x.float()` before the loop, cast for the network call only; or declare `state_dtype = "network"`.
    Source: rounding error of a running sum, Higham, section 4.2; diffusers, FlowMatchEulerDiscreteScheduler.step
    upcasts its sample for this reason.
    """
    spec, reading = run.subject.spec, run.reading
    require(spec.state_dtype == "float32", "the spec declares a state in the network's dtype")
    native = run.case.torch_dtype in (torch.float32, torch.float64)
    seen = [move for move in reading.moves if (move.unscaled_from is None if move.last else native)]
    require(bool(seen), "the state is not seen in its own dtype after the first step")
    for move in seen:
        name = f"the {'final state' if move.last else 'state'} after {by_step(run, move.step)}"
        found = str(move.end.dtype).removeprefix("torch.")
        in_network_dtype = move.last and not native and move.end.dtype == run.case.torch_dtype
        cast = in_network_dtype and _held_longer(run)
        if in_network_dtype and not cast and spec.prediction in ("x1", "x0"):
            continue  # the bound of a step by a predicted end is too wide to show what a cast has hidden
        yield exact(
            move.end.dtype in (torch.float32, torch.float64) or cast,
            f"{name} is {found}, expected float32 (cast it inside the autoencoder, or declare state_dtype)",
            where=by_step(run, move.step),
        )
        # The last step of an x1 prediction may land on the prediction itself, which has the digits of the network.
        lands = move.last and not native and spec.prediction == "x1"
        if all_finite(move.end) and not lands:
            yield from _rounded_through(move, name, by_step(run, move.step))


def _held_longer(run: Run) -> bool:
    """Whether the loop holds more digits than a final state that was cast for the autoencoder shows.

    It does when a state is seen in float32, and also when a change is further from its step than one rounding of the
    new state allows: then the old one had digits that the cast for the network hid.
    """
    for move in run.reading.moves:
        if move.start.dtype in (torch.float32, torch.float64):
            return True
        error, bound = step_error(run, move)
        one_rounding = bound - move_bound(move, 0.0, 0.0) + unit_roundoff(move.end.dtype) * move.end.double().abs()
        if bool((error > one_rounding).any()):
            return True
    return False


def _rounded_through(move: Move, name: str, where: str) -> Iterator[Check]:
    """Whether all values are numbers of a short dtype, although a sum in float32 would not end at such numbers."""
    end = move.end
    if end.dtype not in (torch.float32, torch.float64):
        return
    for dtype in (torch.bfloat16, torch.float16):
        short = str(dtype).removeprefix("torch.")
        rounded = torch.equal(end, end.to(dtype).to(end.dtype))
        if rounded and not sums_show_digits(move.start.double(), move.delta):
            continue
        yield exact(
            not rounded,
            f"every value of {name} is representable in {short}, so it was rounded on the way",
            where=where,
            diagnosis=f"the state is held in {short} and cast back",
        )


def step_error(run: Run, move: Move) -> tuple[Tensor, Tensor]:
    """Error of a move against the spec's own step and guidance weight, and its bound, elementwise."""
    residual, bound = step_residual(run, move)
    return residual.abs(), bound


def step_residual(run: Run, move: Move) -> tuple[Tensor, Tensor]:
    """What a move differs by from the spec's own step and guidance weight, and the bound on its size, elementwise.

    The bound is that of the update, plus the rounding of the step size itself times the velocity.
    """
    reading, weight = run.reading, run.reading.weight
    dt = float(reading.steps_dt[move.step])
    v = move.cond if move.uncond is None else (1 + weight) * move.cond - weight * move.uncond
    of_step = move.fraction * run.memo(step_bounds)[move.step]
    bound = move_bound(move, dt * (1 + weight), dt * weight).add(v.abs(), alpha=of_step)
    return torch.sub(move.delta, v, alpha=move.fraction * dt), bound


def step_bounds(run: Run) -> list[float]:
    """How far the length of every step may be off in a loop whose grid is float32."""
    bounds: list[float] = step_bound(run.reading, torch.float32).tolist()
    return bounds
