"""FM5: precision: how many digits the integration costs, types that nobody asked for, numbers that overflow."""

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from fmcheck.oracles import overflow_runs
from fmcheck.plan import Run
from fmcheck.record.reading import Move
from fmcheck.rules.evidence import by_step, exact, measured, require, require_finite_move, within
from fmcheck.rules.fm5_explain import explain_update
from fmcheck.rules.fm5_integration import step_bounds, step_error, step_residual, worst
from fmcheck.rules.registry import Check, rule
from fmcheck.tensors import all_finite
from fmcheck.tolerance import fit_bound, fit_errors, unit_roundoff


@rule("FM506", "digits-lost")
def digits_lost(run: Run) -> Iterator[Check]:
    """The recorded velocities, integrated in float64, lead to the state that the loop reached, to the sum of roundings.

    How it goes wrong: the state or its increments are rounded to a short dtype, small steps vanish in a large state,
    errors too small for any single step add up in one direction.

    Checked: `x_start + sum(dt (1 + w) c - dt w u)` in float64, with the grid and the weight of the spec and the
    velocities as the network returned them, against the last state, elementwise. Every step is allowed the rounding
    of its velocities, of its length and of its sum (as FM501 derives it), the whole their sum. The report says how many
    of the state's bits the loop cost.

    Fix: hold the state in float32 and add `dt * v` in it. Source: rounding error of a running sum, Higham, section 4.2.
    """
    reading = run.reading
    moves = reading.full_moves
    require(len(moves) == run.case.num_steps, "not every step can be read (see FM301, FM501)")
    require(reading.both_branches or not reading.guided, "the unconditional branch is not evaluated (see FM204)")
    for move in moves:
        require_finite_move(move)
    off, allowed = torch.zeros_like(moves[0].delta), torch.zeros_like(moves[0].delta)
    for move in moves:
        residual, bound = step_residual(run, move)
        off, allowed = off.add_(residual), allowed.add_(bound)
    end = moves[-1].end.double()
    used, limit = worst(off.abs(), allowed)
    declared = used <= limit or all(_as_declared(run, move) for move in moves)
    require(declared, "the steps or their guidance are not the declared ones (see FM303, FM203)")
    unit = unit_roundoff(torch.float32) * end.abs()
    bits = math.log2(max(float(off.norm()) / float(unit.norm()), 1.0)) if bool(end.any()) else 0.0
    if run.name in ("base", "many-steps"):
        yield measured(f"{bits:.1f} of 24 bits of the state lost to rounding in {run.case.num_steps} steps")
    yield within(
        used,
        limit,
        f"the state is {used:.3g} away from a float64 integration of the recorded velocities, roundings allow "
        f"{limit:.3g}: {bits:.1f} of 24 bits are lost",
        where=f"after {len(moves)} steps",
        diagnosis=lambda: _explain_loss(run),
    )


def _as_declared(run: Run, move: Move) -> bool:
    """Whether a step that is a combination of its velocities has the length and the weight that the spec declares."""
    fitted, errors = move.coefficients, fit_errors(move)
    if not fitted.determined or not bool((move.leftover <= fit_bound(move)).all()):
        return True
    weight, k = run.reading.weight, move.step
    off = abs(fitted.dt - float(run.reading.steps_dt[k])) - run.memo(step_bounds)[k]
    known = move.uncond is not None and not move.alike
    return off <= errors.dt and (not known or abs(fitted.weight - weight) <= errors.weight(fitted.dt, weight))


def _explain_loss(run: Run) -> str:
    """Whether elements stand still that should move, or else the step that uses its allowance most, and why."""
    ratios = []
    for move in run.reading.full_moves:
        error, bound = step_error(run, move)
        if bool(((move.delta == 0) & (error > bound)).any()):
            return "small steps are lost in the state"
        used, allowed = worst(error, bound)
        ratios.append((used / allowed if allowed else 0.0, move))
    ratio, move = max(ratios, key=lambda entry: entry[0])
    if ratio <= 1:
        return "every step is within its rounding: the state is touched between the last step and the autoencoder"
    return f"{by_step(run, move.step)} is {ratio:.3g} times its allowance away: {explain_update(move)}"


@rule("FM507", "promoted-to-float64", judges_crashes=True)
def promoted_to_float64(run: Run) -> Iterator[Check]:
    """No tensor of the loop turns into float64 by itself: a state that starts in float32 stays there.

    How it goes wrong: a grid from NumPy, or a tensor that somebody made in float64, promotes the state by `x + dt * v`.
    The numbers are right; memory and time double, accelerators compute float64 at a fraction of their speed, some (MPS)
    have none, and an autoencoder in float32 refuses it.

    Checked: the dtype of the state in every network call and where it enters the autoencoder, also of runs that raised.
    A loop that holds its state in float64 from the start does so on purpose and is left alone.

    Fix: `dt.to(x.dtype)`, or Python floats. Source: type promotion, PyTorch documentation, Tensor Attributes.
    """
    require(run.case.dtype != "float64", "the case asks for float64")
    calls = [call for call in run.trace.calls if call.role in ("velocity", "sample", "decode")]
    states = {call.name: call.inputs.get("x") for call in calls}
    dtypes = {name: x.dtype for name, x in states.items() if isinstance(x, Tensor)}
    require(bool(dtypes), "no state is seen")
    first = next(iter(dtypes.values()))
    require(first != torch.float64, "the state is float64 from the start")
    for name, dtype in dtypes.items():
        yield exact(
            dtype != torch.float64,
            f"{name} is given a float64 state although the loop starts in {str(first).removeprefix('torch.')}",
            severity="warning",
            where=name,
            diagnosis="promoted by a float64 tensor, such as the grid or the guidance scale",
        )


@rule("FM508", "guidance-overflows", wishes=overflow_runs)
def guidance_overflows(runs: Mapping[str, Run]) -> Iterator[Check]:
    """Guidance does not overflow: velocities that float16 holds, combined at a large scale, stay finite.

    How it goes wrong: `(1 + w) c - w u` is computed in float16, whose largest number is 65,504, before it is cast up;
    at a large scale single elements become infinite and the picture black or NaN.

    Checked: for subjects that declare float16, the recorder answers in the network's place with float16 velocities of
    size 1,000 at a guidance weight of 100: the final state must be finite. Pipelines that declare a state in the
    network's dtype are not judged.

    Fix: cast both velocities to float32 before they are combined. Source: IEEE 754 binary16; property H of the
    collected defects.
    """
    require(bool(runs), "the subject does not declare float16")
    for run in runs.values():
        require(run.subject.spec.state_dtype == "float32", "the spec declares a state in the network's dtype")
        require(run.reading.unreadable is None, "the calls cannot be read as evaluations of the flow (see FM300)")
        seen = [e.x_cond for e in run.reading.evaluations[1:]]
        states = seen if run.reading.final is None else [*seen, run.reading.final]
        # What a loop casts for the call may overflow on the way; the state that it holds does not.
        states = [state for state in states if state.dtype in (torch.float32, torch.float64)]
        require(bool(states), "no state after the first step can be seen in its own dtype")
        finite = all(all_finite(state) for state in states)
        yield exact(
            finite,
            "velocities of size 1,000 in float16 at guidance weight 100 make the state infinite",
            where=f"run {run.name}",
            diagnosis="the velocities are combined in float16",
        )
