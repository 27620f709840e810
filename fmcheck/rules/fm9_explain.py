"""Diagnoses of family FM9: the known mistakes of a training loss, recomputed and compared with what was observed."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from fmcheck.record.training import DataEnd, TrainingReading
from fmcheck.spec import FlowSpec
from fmcheck.tolerance import EXPLAINED, ks_critical, ks_distance, path_bound

# Maps from flow time to what a network may be told, by the formula that a reader would write.
_MAPS = (
    (4.0, -8.0, "4 - 8t"),
    (0.0, 1.0, "t"),
    (1.0, -1.0, "1 - t"),
    (0.0, 1000.0, "1000 t"),
    (1000.0, -1000.0, "1000 (1 - t)"),
)
_BENT: tuple[tuple[Callable[[Tensor], Tensor], str], ...] = (
    (torch.sqrt, "sqrt(t)"),
    (torch.square, "t^2"),
    (lambda t: torch.sin(math.pi / 2 * t), "sin(pi t / 2)"),
    (lambda t: 1 - torch.cos(math.pi / 2 * t), "1 - cos(pi t / 2)"),
    (torch.logit, "logit(t)"),
)


def explain_argument(told: Tensor, arguments: Tensor, time: Tensor, spec: FlowSpec) -> str | None:
    """Which wrong map of the time of the state gives what the network was told, over all judged rows.

    Args:
        told: the flow time that the arguments mean, `[n]`.
        arguments: the arguments as passed, `[n]`.
        time: the flow time of the states, `[n]`.
    """
    if len(time) > 1 and float(time.max() - time.min()) <= EXPLAINED:
        return "the states of all rows are at one time"
    if _alike(told, 1 - time):
        return "time is reversed: the network is told 1 - t, or the path runs from x1 to x0"
    for offset, slope, text in _MAPS:
        if _alike(arguments, offset + slope * time):
            return f"the network is told {text}, expected {_formula(spec)}"
    for bend, text in _BENT:
        if _alike(told, bend(time)):
            return f"the network is told the argument of {text}"
    if len(told) > 1 and float(told.max() - told.min()) <= EXPLAINED:
        return "every row is told the same time"
    others = (told.unsqueeze(1) - time.unsqueeze(0)).abs().min(dim=1).values <= EXPLAINED
    if int(others.sum()) > len(told) / 2:
        return "the rows are told each other's times"
    return _fitted_map(arguments, time, spec)


def _formula(spec: FlowSpec) -> str:
    offset, slope = spec.time_map
    return f"{offset:g} {'+' if slope > 0 else '-'} {abs(slope):g} t"


def _fitted_map(arguments: Tensor, time: Tensor, spec: FlowSpec) -> str | None:
    if len(time) <= 2:
        return None
    design = torch.stack([torch.ones_like(time), time], dim=1)
    offset, slope = torch.linalg.lstsq(design, arguments.unsqueeze(1)).solution.flatten().tolist()
    if not _alike(arguments, offset + slope * time):
        return None
    return f"the network is told {offset:.4g} + {slope:.4g} t, expected {_formula(spec)}"


def _alike(a: Tensor, b: Tensor) -> bool:
    return bool(((a - b).abs() <= EXPLAINED * (1 + b.abs())).all())


def explain_path(reading: TrainingReading, off: Tensor) -> str | None:
    """What the states of the rows in `off` (indices) are, when they are not on the declared line."""
    found = (_other_path(reading, off, end) for end in reading.ends)
    return next((text for text in found if text), None) or _leftover(reading, off)


def _other_path(reading: TrainingReading, off: Tensor, end: DataEnd) -> str | None:
    state, x0, x1, spec = reading.state[off], reading.x0[off], end.rows[off], reading.spec
    for ending, text in _other_units(x1, spec):
        if _on_line(state, x0, ending, spec.sigma_min, path_bound(x0, ending, reading.dtype)):
            return text
    a, b, residual = two_ends(state, x0, x1)
    if bool((residual <= path_bound(x0, x1, reading.dtype).norm(dim=1)).all()):
        return _coefficients(a, b, spec)
    partners = elsewhere(reading, off, end)
    if all(partner is not None for partner in partners):
        return f"x1 belongs to another row: row {int(off[0])} lies on the path to the image of row {partners[0]}"
    for other, text in _other_sources(x0, reading.shape):
        if _on_line(state, other, x1, spec.sigma_min, path_bound(other, x1, reading.dtype)):
            return text
    return None


def other_units(reading: TrainingReading) -> str | None:
    """The wrong units of the encoded image with which the conditional rows lie on the path, if there are any."""
    rows, spec = reading.conditional, reading.spec
    state, x0 = reading.state[rows], reading.x0[rows]
    for end in reading.ends:
        for ending, text in ((end.rows[rows], None), *_other_units(end.rows[rows], spec)):
            if _on_line(state, x0, ending, spec.sigma_min, path_bound(x0, ending, reading.dtype)):
                return text
    return None


def _other_units(x1: Tensor, spec: FlowSpec) -> Iterator[tuple[Tensor, str]]:
    scale, shift = spec.latent_scale, spec.latent_shift
    if isinstance(scale, tuple) or isinstance(shift, tuple):
        return  # the rows are flat, and their channels cannot be told apart
    for other, formula in (
        (x1 / scale + shift, "x1 / scale + shift"),
        (x1 * scale, "x1 * scale, without the shift"),
        (x1 / scale, "x1 / scale"),
        (x1 * scale + shift, "x1 * scale + shift"),
        (x1 - shift, "x1 - shift, without the scale"),
        (x1 + shift, "x1 + shift"),
    ):
        if not torch.equal(other, x1):
            yield other, f"the encoded image enters the path in other units: {formula}"


def _leftover(reading: TrainingReading, off: Tensor) -> str:
    state, x0 = reading.state[off], reading.x0[off]
    x1 = min((end.rows[off] for end in reading.ends), key=lambda rows: float(two_ends(state, x0, rows)[2].sum()))
    explained, left = _explained(state, x0, x1)
    if explained <= left:
        return "x1 of the path is not the output of the encode point"
    a, b, _ = two_ends(state, x0, x1)
    size = math.sqrt(left / state.numel())
    return f"something is added to the path: {size:.3g} root mean square besides {_mean(a)} x0 + {_mean(b)} x1"


def two_ends(state: Tensor, x0: Tensor, x1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Least-squares `a`, `b` of `x_t = a x0 + b x1` in every row, and the distance that is left, each `[n]`."""
    across = x1 - (x1 * x0).sum(1, keepdim=True) / x0.square().sum(1, keepdim=True) * x0
    b = (state * across).sum(1, keepdim=True) / across.square().sum(1, keepdim=True)
    rest = state - b * x1
    a = (rest * x0).sum(1, keepdim=True) / x0.square().sum(1, keepdim=True)
    return a.flatten(), b.flatten(), (rest - a * x0).norm(dim=1)


def _coefficients(a: Tensor, b: Tensor, spec: FlowSpec) -> str:
    keep = 1 - spec.sigma_min
    laws = (
        (float((a + b - 1).abs().max()), f"sigma_min is missing: the path is (1 - t) x0 + t x1, not {keep:g} t"),
        (float((b - (1 - keep * a)).abs().max()), "x0 and x1 are swapped: the path runs from the image to the text"),
        (
            float((a.square() + b.square() - 1).abs().max()),
            "the path is variance preserving, a^2 + b^2 = 1, not linear",
        ),
    )
    deviation, text = min(laws)
    return text if deviation <= EXPLAINED else f"the path is {_mean(a)} x0 + {_mean(b)} x1 on average over the rows"


def elsewhere(reading: TrainingReading, rows: Tensor, end: DataEnd) -> list[int | None]:
    """For each of `rows` (indices), the other row of `end` that its path leads to; None when there is none."""
    found: list[int | None] = []
    for row in rows.tolist():
        others = [j for j in range(reading.batch) if j != row]
        found.append(next((j for j in others if _leads_to(reading, row, end.rows[j : j + 1])), None))
    return found


def _leads_to(reading: TrainingReading, row: int, x1: Tensor) -> bool:
    state, x0 = reading.state[row : row + 1], reading.x0[row : row + 1]
    return _on_line(state, x0, x1, reading.spec.sigma_min, path_bound(x0, x1, reading.dtype))


def _on_line(state: Tensor, x0: Tensor, x1: Tensor, sigma_min: float, bound: Tensor) -> bool:
    direction = x1 - (1 - sigma_min) * x0
    time = ((state - x0) * direction).sum(1, keepdim=True) / direction.square().sum(1, keepdim=True)
    return bool(((state - x0 - time * direction).norm(dim=1) <= bound.norm(dim=1)).all())


def _other_sources(x0: Tensor, shape: torch.Size) -> Iterator[tuple[Tensor, str]]:
    if len(shape) != 3:
        return
    channels, height, width = shape
    grid = x0.reshape(-1, height, width, channels)
    yield grid.movedim(-1, 1).flatten(1), "the text latent is reshaped as (h, w, C)"
    turned = x0.reshape(-1, channels, width, height)
    yield turned.transpose(2, 3).flatten(1), "height and width of the text latent are exchanged"


def _explained(state: Tensor, x0: Tensor, x1: Tensor) -> tuple[float, float]:
    """Of what `x0` leaves of the states, the squares that `x1` explains and those it does not."""
    alone = (state * x0).sum(1, keepdim=True) / x0.square().sum(1, keepdim=True)
    total = float((state - alone * x0).square().sum())
    left = float(two_ends(state, x0, x1)[2].square().sum())
    return total - left, left


def feeds_path(reading: TrainingReading) -> bool:
    """Whether the data end explains more of the conditional states than it leaves unexplained."""
    rows = reading.conditional
    shares = (_explained(reading.state[rows], reading.x0[rows], end.rows[rows]) for end in reading.ends)
    return any(explained > left for explained, left in shares)


def _mean(values: Tensor) -> str:
    return f"{float(values.mean()):.3g}"


def explain_times(times: Tensor, spec: FlowSpec) -> str:
    """What the training times look like instead: a known law, or the fitted mean and spread of their logits."""
    outside = int(((times < 0) | (times > 1)).sum())
    if outside:
        return f"{outside} of {len(times)} times lie outside [0, 1]"
    distinct = len(set(times.tolist()))
    if distinct < math.sqrt(len(times)):
        return f"times are drawn from {distinct} values only"
    edge = max(int((times == times.min()).sum()), int((times == times.max()).sum()))
    if edge > math.sqrt(len(times)):
        return f"times are clamped: {edge} of {len(times)} rows have the same extreme time"
    inside = times.clamp(torch.finfo(torch.float64).eps, 1 - torch.finfo(torch.float64).eps)
    logits = torch.logit(inside)
    mean, std = float(logits.mean()), float(logits.std())
    if spec.time_distribution != "uniform" and ks_distance(times.clamp(0, 1)) <= ks_critical(len(times)):
        return "the times are uniform"
    fits = ks_distance(torch.special.ndtr((logits - mean) / std)) <= ks_critical(len(times))
    return f"{'the times are' if fits else 'no known law; fitted'} logit-normal with mean {mean:.2f} and std {std:.2f}"


def distance_to_law(times: Tensor, spec: FlowSpec, error: float) -> float:
    """Kolmogorov-Smirnov distance of `times` from the spec's law, the least that times within `error` could have."""
    return ks_distance(_cdf(times + error, spec), _cdf(times - error, spec))


def _cdf(times: Tensor, spec: FlowSpec) -> Tensor:
    inside = times.clamp(0, 1)
    if spec.time_distribution == "uniform":
        return inside
    probability: Tensor = torch.special.ndtr((torch.logit(inside) - spec.grid_mean) / spec.grid_std)
    return probability


def explain_range(found: Tensor, images: Tensor) -> str | None:
    """The other range that the images were brought to, when that is all that happened to them."""
    centred, spread = found - found.mean(), images - images.mean()
    slope = float((centred * spread).sum() / spread.square().sum())
    offset = float(found.mean()) - slope * float(images.mean())
    if slope <= 0 or not _alike(found, slope * images + offset):
        return None
    return (
        f"the images are brought to another range, {slope:.3g} x image {'+' if offset >= 0 else '-'} {abs(offset):.3g}"
    )


def explain_images(found: Tensor, images: Tensor) -> str | None:
    """How the images that training encodes were made from those it was handed."""
    candidates = [(images.flip(-1), "mirrored left to right"), (images.flip(-2), "turned upside down")]
    if images.shape[-1] == images.shape[-2]:
        candidates.append((images.transpose(-1, -2), "transposed"))
    for candidate, text in candidates:
        if _alike(found, candidate):
            return f"the images are {text}"
    order = _row_order(found, images)
    return f"the rows are in another order: row 0 holds image {order[0]}" if order else None


def _row_order(found: Tensor, images: Tensor) -> list[int] | None:
    distance = torch.cdist(found.flatten(1), images.flatten(1), p=torch.inf)
    nearest, order = distance.min(dim=1)
    return order.tolist() if bool((nearest <= EXPLAINED).all()) else None
