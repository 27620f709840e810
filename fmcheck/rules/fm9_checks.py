"""Comparisons of family FM9 that are longer than a rule: null rows, encoded images, rows on the declared path."""

from collections.abc import Iterator

import torch
from torch import Tensor

from fmcheck.plan import Run
from fmcheck.record.training import TrainingReading
from fmcheck.record.training_pair import TrainingPair
from fmcheck.rules.evidence import exact, require, require_finite, within
from fmcheck.rules.fm9_explain import distance_to_law, explain_images, explain_range
from fmcheck.rules.registry import Check
from fmcheck.spec import FlowSpec
from fmcheck.tensors import zeros_and_ones
from fmcheck.tolerance import (
    binomial_range,
    block_shows,
    exchange_shows,
    image_bound,
    ks_critical,
    path_bound,
    told_bound,
)

__all__ = [
    "encoded_images",
    "law_of_null_times",
    "null_rows_exchanged",
    "null_rows_trained",
    "path_rounding",
    "rows_on_line",
    "share_of_null",
    "times_of_answers",
    "times_on_line",
    "tokens_of",
]


def path_rounding(reading: TrainingReading) -> Tensor:
    """How far rounding may move the state of each row off its line, `[B]`."""
    rounding: Tensor = path_bound(reading.x0, reading.line.end.rows, reading.dtype).norm(dim=1)
    return rounding


def rows_on_line(reading: TrainingReading) -> tuple[Tensor, Tensor]:
    """Numbers of the conditional rows on the declared path, and of those off it."""
    line = reading.line
    require_finite(reading.state, reading.x0, line.end.rows)
    judged = reading.conditional & (line.direction > 0)
    on = line.residual <= path_rounding(reading)
    return (judged & on).nonzero().flatten(), (judged & ~on).nonzero().flatten()


def times_on_line(reading: TrainingReading) -> tuple[Tensor, Tensor, Tensor]:
    """Numbers of the conditional rows on the path, the times of their states, and how far rounding may move these."""
    on, _ = rows_on_line(reading)
    return on, reading.line.time[on], (path_rounding(reading) / reading.line.direction)[on]


def times_of_answers(pair: TrainingPair) -> tuple[Tensor, Tensor, Tensor]:
    """The same from the answers to other data ends, for the rows that answer to their own."""
    require_finite(pair.answer, *pair.questions)
    rounding = _answer_rounding(pair)
    rows = (pair.plain.conditional & (pair.residual <= rounding)).nonzero().flatten()
    return rows, pair.time[rows], (rounding / pair.questions[pair.unit].norm(dim=1))[rows]


def _answer_rounding(pair: TrainingPair) -> Tensor:
    """How far rounding of both states may move the answer of each row, `[B]`; the source is solved from the state."""
    plain, time = pair.plain, pair.time.unsqueeze(1)
    end, moved = plain.ends[pair.unit].rows, pair.moved.ends[pair.unit].rows
    source = (plain.state - time * end) / (1 - (1 - plain.spec.sigma_min) * time)
    both = path_bound(source, end, plain.dtype) + path_bound(source, moved, plain.dtype)
    rounding: Tensor = both.norm(dim=1)
    return rounding


def share_of_null(run: Run, null: Tensor) -> Check:
    probability, rows, found = run.subject.spec.null_probability, len(null), int(null.sum())
    low, high = binomial_range(rows, probability)
    expected = rows * probability

    def cause() -> str | None:
        if found == 0:
            evaluating = not any(call.training for call in run.trace.of("velocity"))
            tail = "; the network is in eval mode: are rows dropped in train mode only?" if evaluating else ""
            return "no row is ever unconditional" + tail
        inverted = low <= rows - found <= high
        return "the indicator is inverted: it marks the conditional rows" if inverted else None

    return within(
        abs(found - expected),
        high - expected if found > expected else expected - low,
        f"{found} of {rows} training rows are marked unconditional, expected {low} to {high} "
        f"for a probability of {probability:g}",
        where=f"run {run.name}",
        diagnosis=cause,
    )


def law_of_null_times(run: Run, reading: TrainingReading, null: Tensor) -> Iterator[Check]:
    """Whether the marked rows have times of the declared law too; one time for the whole batch is FM902's to report."""
    times, distinct = reading.told[null], len(set(reading.told.tolist()))
    # Groups of rows that share a time are no independent draws; a coarse dtype repeats some values.
    if 2 * distinct > len(reading.told) and ks_critical(max(1, len(times))) < 1:
        yield within(
            distance_to_law(times, run.subject.spec, told_bound(run.subject.spec, reading.argument_dtype)),
            ks_critical(len(times)),
            f"the {len(times)} rows that are marked unconditional have not the times of all rows "
            "(Kolmogorov-Smirnov distance)",
            where=f"run {run.name}",
            diagnosis="the indicator and the time come from one and the same random number",
        )


def null_rows_trained(reading: TrainingReading) -> Iterator[Check]:
    """Whether the loss pulls at the marked rows, and whether they are scattered over the batch."""
    null = reading.null
    if null is None:
        return
    if bool(null.any()) and reading.unknown_gradient is None:
        idle = ~reading.gradient.any(dim=1)
        yield exact(
            not bool(idle[null].all()) or bool(idle.all()),
            f"the loss has no gradient in any of the {int(null.sum())} rows that are marked unconditional",
            diagnosis="marked rows are left out of the loss, so the unconditional velocity is never trained",
        )
    marked = null.nonzero().flatten()
    if len(marked) and block_shows(len(null), len(marked)):
        first, last = int(marked[0]), int(marked[-1])
        yield exact(
            last - first + 1 > len(marked),
            f"the {len(marked)} rows that are marked unconditional are rows {first} to {last} of {len(null)}",
            diagnosis="the rows are chosen by their place in the batch and not drawn",
        )


def null_rows_exchanged(pair: TrainingPair) -> Iterator[Check]:
    """Whether the rows that follow another row's image are those that are marked unconditional."""
    require(pair.plain.state.shape[1] > 1, "a state of one number follows every image")
    conditional = pair.plain.conditional
    exchanged = (pair.residual > _answer_rounding(pair)) & (pair.partners != torch.arange(len(conditional)))
    # Where most rows are exchanged the pairs themselves are wrong, whatever the indicator says (FM903).
    require(int(exchanged.sum()) <= len(exchanged) / 2, "most rows train towards another row's image (see FM903)")
    wrong, null = int((exchanged & conditional).sum()), int((~conditional).sum())
    yield exact(
        wrong == 0,
        f"{wrong} of {len(exchanged)} rows train towards another row's image without being marked unconditional "
        f"({int((exchanged & ~conditional).sum())} of {null} marked rows do)",
        diagnosis="the indicator that the network gets is not the one by which images are exchanged",
    )
    if wrong == 0 and pair.plain.spec.initial_state == "text_latent" and exchange_shows(null):
        yield exact(
            bool(exchanged.any()),
            f"all {null} rows that are marked unconditional keep their own image, although their path starts at their "
            "own prompt",
            severity="warning",
            diagnosis="the unconditional velocity learns the conditional one; exchange x1 among the marked rows",
        )


def tokens_of(run: Run) -> dict[str, int]:
    """How many tokens the mask leaves of each prompt; empty where no mask has a row for every prompt."""
    masks = [call.inputs.get("attention_mask") for call in run.trace.of("text")]
    first = next((mask for mask in masks if isinstance(mask, Tensor) and mask.dim() == 2), None)
    if first is None or len(first) % run.case.batch or not zeros_and_ones(first):
        return {}
    # Of a doubled batch the conditional prompts are one half, in the spec's order.
    later = run.subject.spec.guidance_layout in ("uncond_first", "separate_uncond_first")
    half = first[-run.case.batch :] if later else first[: run.case.batch]
    return dict(zip(run.case.prompts, half.bool().sum(dim=1).tolist(), strict=True))


def null_counts(run: Run) -> set[int]:
    """How many tokens the mask leaves of the rows that are no prompt of the case: those of the empty prompt."""
    masks = [call.inputs.get("attention_mask") for call in run.trace.of("text")]
    counts = [mask.bool().sum(dim=1).tolist() for mask in masks if isinstance(mask, Tensor) and mask.dim() == 2]
    later = run.subject.spec.guidance_layout in ("uncond_first", "separate_uncond_first")
    rows = [count for part in counts for count in part]
    return set(rows[: -run.case.batch] if later else rows[run.case.batch :])


def encoded_images(run: Run, parts: list[Tensor]) -> Iterator[Check]:
    images, spec = run.trace.images, run.subject.spec
    whole = all(part.shape[1:] == parts[0].shape[1:] for part in parts)
    found = torch.cat(parts).cpu() if whole else None
    if found is not None and spec.latent_frames is not None and found.dim() == 5 and found.shape[2] == 1:
        found = found.squeeze(2)  # a picture is a video of one frame
    if images is None or found is None or len(found) != len(images):
        return
    yield exact(
        found.shape == images.shape,
        f"the encode point gets images {list(found.shape[1:])}, the loss was handed {list(images.shape[1:])}",
    )
    if found.shape == images.shape:
        expected = _in_codec_range(images.cpu(), spec)
        # Nearly always the same bits, which are compared much faster than in float64.
        yield exact(True, "") if torch.equal(found, expected) else _image_check(found, expected, spec)


def _in_codec_range(images: Tensor, spec: FlowSpec) -> Tensor:
    (low, high), (to_low, to_high) = spec.image_range, spec.decode_range or spec.image_range
    return images if (low, high) == (to_low, to_high) else to_low + (images - low) * (to_high - to_low) / (high - low)


def _image_check(found: Tensor, expected: Tensor, spec: FlowSpec) -> Check:
    dtype, found, expected = found.dtype, found.double(), expected.double()
    error, bound = (found - expected).abs(), image_bound(expected, spec, dtype)
    worst = int((error / bound).argmax())
    used, allowed = float(error.flatten()[worst]), float(bound.flatten()[worst])
    rescaled = explain_range(found, expected) if used > allowed else None
    return within(
        used,
        allowed,
        "what enters the encode point is not the image that the loss was handed",
        severity="warning" if rescaled else "error",
        diagnosis=lambda: rescaled or explain_images(found, expected),
    )
