"""What is measured of one run: the pictures, the states on the way, the time."""

import time
import warnings
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from fmcheck.case import Case
from fmcheck.drive import tokens_of
from fmcheck.errors import DeclarationError, NotInformative
from fmcheck.judge import Judge
from fmcheck.judging import scores_of
from fmcheck.record.boundary import is_preview
from fmcheck.record.watch import global_random_state, restore_settings, settings
from fmcheck.session import Session
from fmcheck.subject import Request
from fmcheck.tensors import rms_rows
from fmcheck.wish import Run

__all__ = [
    "END_ZONE",
    "Measured",
    "bare_seconds",
    "clipped",
    "colour",
    "distance",
    "measured",
    "pictures_of",
    "state_norms",
]

# Share of the image range, from either end, within which a value counts as one that ran into it.
END_ZONE = 0.01


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One run in numbers; every list has one entry a picture, in the order of the prompts.

    Attributes:
        finite: whether the picture holds no NaN and no infinity; what is measured of one that does is None.
        scores: the judge's, by name; empty without a judge.
        clipped, colour, distance: see the functions of these names. `colour` is empty for pictures without three
            channels, `distance` where there is no unguided picture.
        norms: `[K + 1][B]`, see :func:`state_norms`; empty where the states cannot be read.
        no_norms: why they cannot, or why the last one is missing.
        seconds: one call without the recorder; None where it was not timed.
    """

    finite: list[bool]
    scores: dict[str, list[float | None]]
    clipped: list[float | None]
    colour: list[float | None]
    distance: list[float | None]
    norms: list[list[float]]
    no_norms: str = ""
    seconds: float | None = None

    def as_table(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def clipped(images: Tensor, low: float, high: float) -> Tensor:
    """Share of the values of each picture at or beyond the ends of the image range, or within 1% of it, `[B]` float64.

    Too much guidance drives pictures there. A plain white or black background is there too, so that only the change
    from the unguided picture says something.
    """
    zone = END_ZONE * (high - low)
    ends = (images <= low + zone) | (images >= high - zone)
    return ends.flatten(1).double().mean(1)


def colour(images: Tensor, low: float, high: float) -> Tensor | None:
    """Mean over the pixels of `max - min` of red, green and blue in units of the range, `[B]` float64 in [0, 1].

    That is saturation times value of HSV: the saturation alone is noise where a pixel is nearly black. None for
    pictures without three channels.
    """
    if images.shape[1] != 3:
        return None
    unit = ((images.double() - low) / (high - low)).clamp(0, 1)
    return (unit.amax(1) - unit.amin(1)).flatten(1).mean(1)


def distance(images: Tensor, unguided: Tensor, low: float, high: float) -> Tensor:
    """RMS of the difference from the unguided picture of the same noise and steps, in units of the image range, `[B]`.

    0.1 is a tenth of the way from black to white, in every value.
    """
    return (images.double() - unguided.double()).square().flatten(1).mean(1).sqrt() / (high - low)


def state_norms(run: Run) -> tuple[list[list[float]], str]:
    """RMS of each row's state before the first step and after every step, `[K + 1][B]`; and what is missing, or "".

    Raises:
        NotInformative: the calls cannot be read as steps of the declared flow.
    """
    seen = run.reading.final is not None
    missing = "" if seen else "the state after the last step enters no observed function"
    return [list(rms_rows(state)) for state in run.reading.states], missing


def pictures_of(run: Run) -> Tensor:
    """`[B, channels, H, W]` float32 on the CPU.

    Raises:
        NotInformative: the run raised.
        DeclarationError: something else came out.
    """
    images = run.result
    if images.dim() != 4 or len(images) != run.case.batch or not images.is_floating_point():
        raise DeclarationError(
            f"subject {run.subject.name!r}: generate: expected images [{run.case.batch}, channels, H, W]; "
            f"found {str(images.dtype).removeprefix('torch.')} {list(images.shape)}"
        )
    return images.detach().to("cpu", torch.float32)


def measured(run: Run, images: Tensor, unguided: Tensor | None, judge: Judge | None, seconds: float | None) -> Measured:
    """Everything about one run whose pictures are `images`, beside the `unguided` ones of the same noise.

    Raises:
        DeclarationError: the judge raised, or its scores are none.
    """
    low, high = run.subject.spec.image_range
    finite = images.isfinite().flatten(1).all(1)
    try:
        norms, no_norms = state_norms(run)
    except NotInformative as reason:
        norms, no_norms = [], str(reason)
    shade = colour(images, low, high)
    away = None if unguided is None or unguided.shape != images.shape else distance(images, unguided, low, high)
    return Measured(
        finite=finite.tolist(),
        scores={} if judge is None else _scores(judge, run.case.prompts, images, (low, high), finite),
        clipped=_listed(clipped(images, low, high), finite),
        colour=[] if shade is None else _listed(shade, finite),
        distance=[] if away is None else _listed(away, finite & away.isfinite()),
        norms=norms,
        no_norms=no_norms,
        seconds=seconds,
    )


def _listed(values: Tensor, finite: Tensor) -> list[float | None]:
    return [float(value) if good else None for value, good in zip(values, finite, strict=True)]


def _scores(
    judge: Judge, prompts: Sequence[str], images: Tensor, image_range: tuple[float, float], finite: Tensor
) -> dict[str, list[float | None]]:
    """The judge sees finite pictures only."""
    good = [i for i, well in enumerate(finite.tolist()) if well]
    if not good:
        return {}
    found = scores_of(judge, [prompts[i] for i in good], images[good], image_range)
    scores: dict[str, list[float | None]] = {}
    for name, values in found.items():
        scores[name] = [None] * len(prompts)
        for i, value in zip(good, values.tolist(), strict=True):
            scores[name][i] = value
    return scores


def bare_seconds(session: Session, case: Case) -> float | None:
    """Wall time of one `generate` without the recorder; None when it raised. Leaves model and process as found."""
    model, state = session.model(case)
    subject, device = session.subject, torch.device(case.device)
    request = Request(case, tokens_of(subject, model, case), torch.Generator().manual_seed(case.seed))
    process = settings()
    with global_random_state(case.device, disturb=case.seed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            started = _now(device)
            returned = subject.generate(model, request)
            if is_preview(returned):
                deque(returned, maxlen=0)
            return _now(device) - started
        except Exception:
            # The recorded run of the same case says what is wrong.
            return None
        finally:
            restore_settings(process)
            if state.changes(thorough=False):
                state.restore()


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
