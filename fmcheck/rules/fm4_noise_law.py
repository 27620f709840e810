"""FM4, continued: the noise that a flow from noise starts at, in sampling and in training."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from fmcheck.plan import Plan, Run, Wish
from fmcheck.record.training import TrainingReading
from fmcheck.record.training_pair import TrainingPair
from fmcheck.rules.evidence import require, require_finite, within
from fmcheck.rules.fm9_checks import times_of_answers
from fmcheck.rules.fm9_pull import implied_source
from fmcheck.rules.registry import Check, rule
from fmcheck.spec import FlowSpec
from fmcheck.tensors import joined
from fmcheck.tolerance import EXPLAINED, ks_critical, ks_distance, noise_bounds, told_bound, unit_roundoff

# What is left of the source in a training state at least, for it to be solved for.
_REMAINS = 1 / 16


def _noise_runs(plan: Plan) -> dict[str, Wish]:
    subject = plan.subject
    if subject.spec.initial_state != "noise":
        return {}
    trains = subject.loss is not None and "encode" in subject.points
    training = {"loss": plan.loss, "moved": plan.moved_loss} if trains else {}
    return {"base": plan.base, "other": plan.other_seed, **training}


@rule("FM407", "wrong-noise", conventions=("initial_state", "noise_scale"), wishes=_noise_runs)
def wrong_noise(runs: Mapping[str, Run]) -> Iterator[Check]:
    """A flow from noise starts at independent normal numbers, `x0 = noise_scale * eps`, in sampling and in training.

    How it goes wrong: one row of noise is copied to the whole batch, the noise is multiplied by the latent scale, it is
    uniform (`rand` for `randn`), it has a mean, training and sampling scale it differently. Pictures still come out.

    Checked: the first states of two seeds, and in one loss the source ends that states, told times and encoded images
    leave (`moved` data ends show in which units these enter the path), in conditional rows: their law by the
    Kolmogorov-Smirnov distance, and all squares of rows and products of two rows by exact tail bounds. All statistical
    rules together raise at most one false alarm in a million runs. It cannot see patterns within a row that keep its
    law and its length, nor the noise of training states that are not where the network is told they are (FM901, FM903).

    Fix: `torch.randn(batch, ..., generator=generator)` in both, or declare the factor as `noise_scale`. Source:
    Massart, Annals of Probability 18 (1990), and Laurent and Massart, Annals of Statistics 28 (2000), for the bounds;
    rectified flow, arXiv 2209.03003, section 2, for the source of the flow.
    """
    require(bool(runs), "the flow starts at the text latent, not at noise")
    starts = [runs[name].reading.initial for name in ("base", "other")]
    require(starts[0].shape == starts[1].shape, "two seeds start at states of two shapes (see FM104)")
    start = joined(starts).cpu()
    noise, spec = start.double().flatten(1), runs["base"].subject.spec
    # As little as bfloat16 leaves of a draw; sums of squares and the distance allow for it.
    rounding = unit_roundoff(start.dtype) * noise.abs()
    yield from _is_normal(noise, rounding, spec, f"runs {runs['base'].name} and {runs['other'].name}")
    if "loss" in runs:
        plain, moved = (TrainingReading(runs[name].trace, spec) for name in ("loss", "moved"))
        yield from _is_normal(*_trained(plain, moved), spec, f"run {runs['loss'].name}, solved from its states")


def _trained(plain: TrainingReading, moved: TrainingReading) -> tuple[Tensor, Tensor]:
    """The source ends of the conditional rows whose state has enough of them, and how far rounding moves them."""
    pair = TrainingPair(plain, moved)
    answering, time, rounding = times_of_answers(pair)
    # At another time than the told one, the images are in what is solved for.
    told = plain.told[answering]
    on_path = answering[(told - time).abs() <= rounding + told_bound(plain.spec, plain.argument_dtype)]
    require(len(on_path) > 0, "no training state is where the network is told that it is (see FM901, FM903)")
    noise, error = implied_source(plain, plain.ends[pair.unit])
    rows = on_path[1 - (1 - plain.spec.sigma_min) * plain.told[on_path] >= _REMAINS]
    require(len(rows) > 0, "no conditional row has enough of its source end left")
    return noise[rows], error[rows]


def _is_normal(noise: Tensor, rounding: Tensor, spec: FlowSpec, where: str) -> Iterator[Check]:
    """The two tests of rows `[R, D]` that should be `noise_scale` times standard normal."""
    require_finite(noise)
    x, error = noise / spec.noise_scale, rounding / spec.noise_scale
    law = f"normal with standard deviation {spec.noise_scale:g}"
    yield within(
        ks_distance(torch.special.ndtr(x + error).flatten(), torch.special.ndtr(x - error).flatten()),
        ks_critical(x.numel()),
        f"the {x.numel()} numbers that the flow starts at are not {law} (Kolmogorov-Smirnov distance)",
        where=where,
        diagnosis=lambda: _explain(noise, spec),
    )
    used, allowed, what = _largest(x, error)
    yield within(
        used,
        allowed,
        f"{what} {used:.4g} away from that of independent rows that are {law}",
        where=where,
        diagnosis=lambda: _explain(noise, spec),
    )


def _largest(x: Tensor, error: Tensor) -> tuple[float, float, str]:
    """The square of a row, product of two, or sum of all squares that is furthest from normal, in units of its bound.

    Each is divided by the count of its numbers.
    """
    rows, numbers = x.shape
    bounds = noise_bounds(rows, numbers)
    gram = x @ x.T - numbers * torch.eye(rows, dtype=x.dtype)
    rounded = x.abs() @ error.T
    rounded = rounded + rounded.T + error @ error.T
    allowed = torch.where(torch.eye(rows, dtype=torch.bool), bounds.row, bounds.pair) + rounded
    worst = int((gram.abs() / allowed).argmax())
    row, other = divmod(worst, rows)
    what = f"the mean square of row {row} is" if row == other else f"the mean product of rows {row} and {other} is"
    used, limit = float(gram.abs().flatten()[worst]), float(allowed.flatten()[worst])
    whole, whole_limit = abs(float(gram.trace())), bounds.whole + float(rounded.trace())
    if whole / whole_limit > used / limit:
        return whole / x.numel(), whole_limit / x.numel(), "the mean square of all rows is"
    return used / numbers, limit / numbers, what


def _explain(noise: Tensor, spec: FlowSpec) -> str:
    """What the noise is instead."""
    # A common mean is no common noise.
    unit = torch.nn.functional.normalize(noise - noise.mean(), dim=1)
    alike = (unit @ unit.T - torch.eye(len(unit), dtype=unit.dtype)).abs()
    first, second = sorted(divmod(int(alike.argmax()), len(alike)))
    if float(alike.max()) > 1 - EXPLAINED:
        return f"rows {first} and {second} start at the same noise"
    if float(alike.max()) > noise_bounds(*noise.shape).pair / noise.shape[1]:
        return f"rows share a part of their noise: rows {first} and {second} correlate by {float(alike.max()):.2g}"
    flat, critical = noise.flatten(), ks_critical(noise.numel())
    mean, std = float(flat.mean()), float(flat.std())
    numbers = f"mean {mean:.3g} and standard deviation {std:.3g}"
    if ks_distance(torch.special.ndtr(flat / std)) <= critical:
        return f"the noise has a standard deviation of {std:.3g}{_known_factor(std / spec.noise_scale, spec, critical)}"
    if ks_distance(torch.special.ndtr((flat - mean) / std)) <= critical:
        return f"the noise is normal with {numbers}"
    if ks_distance(((flat - mean) / std / 12**0.5 + 0.5).clamp(0, 1)) <= critical:
        return f"the noise is uniform, with {numbers}"
    return f"no known law, with {numbers}"


def _known_factor(factor: float, spec: FlowSpec, error: float) -> str:
    scale = spec.latent_scale
    known = () if isinstance(scale, tuple) else ((scale, "the latent scale"), (1 / scale, "one over the latent scale"))
    names = [name for value, name in known if value != 1 and abs(factor / abs(value) - 1) <= error]
    return f", the declared one times {names[0]}" if names else ""
