"""Rows of two related runs compared: in the images, and in every recorded call, to say where they part."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fmcheck.errors import NotInformative
from fmcheck.plan import Run
from fmcheck.record.trace import Call
from fmcheck.rules.evidence import bitwise, exact, require, require_finite, within
from fmcheck.rules.registry import Check
from fmcheck.tolerance import half_digits

__all__ = [
    "Parting",
    "close",
    "half_of_digits",
    "image_digits",
    "image_of",
    "parting",
    "row_changed",
    "row_kept",
    "same_text_shapes",
    "same_images",
    "same_rows",
    "whole_calls",
]


@dataclass(frozen=True)
class Parting:
    """The first recorded tensor in which a row of two runs differs; `event` is empty where only the image does."""

    event: str = ""
    cause: str | None = None


def row_kept(base: Run, other: Run, row: int, what: str) -> Check:
    """A row is the same in both runs, in its image and in every recorded call."""
    batch = base.case.batch
    before, after = image_of(base, row), image_of(other, row)
    if not _same_shapes(base, other, row):
        require(before.shape == after.shape, "the two runs return images of different shapes (see FM702)")
        message = f"row {row} of {batch} changed when {what} (other shapes, so half of the digits are asked for)"
        return close(after, before, image_digits(base), message, where=f"row {row} of {batch}")
    parted = parting(base, other, row)
    change = float((after.double() - before.double()).abs().max()) if before.shape == after.shape else torch.inf
    return exact(
        bitwise(before, after) and not parted.event,
        f"row {row} of {batch} changed when {what}; largest change of its image {change:.3g}, allowed 0 (bitwise)",
        where=", ".join(part for part in (f"row {row} of {batch}", parted.event) if part),
        diagnosis=parted.cause,
    )


def image_of(run: Run, row: int) -> Tensor:
    images = run.result
    if images.dim() == 0 or len(images) != run.case.batch:
        raise NotInformative(f"run {run.name!r}: {len(images)} images for {run.case.batch} prompts (see FM702)")
    return images[row]


def same_rows(a: object, b: object, row: int, batch: int) -> bool:
    """Whether a row agrees bit for bit; tensors without a row for every prompt are not compared."""
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)) or not a.dim() or len(a) % batch or a.shape != b.shape:
        return True
    return bitwise(a[row::batch], b[row::batch])


def _same_shapes(base: Run, other: Run, row: int) -> bool:
    """Whether equal kernels computed the row in both runs, so that equal bits are promised.

    Prompts of other lengths change the shape of the tokens. Where the row's text latent is the same all the same, what
    follows is still comparable bit for bit, unless it is masked and cuts its tokens to the longest prompt itself.
    """
    texts = list(zip(base.trace.of("text"), other.trace.of("text"), strict=False))
    told = bool(texts) and all(_equal_latents(a, b, row, base.case.batch) for a, b in texts)
    pairs = zip(base.trace.calls, other.trace.calls, strict=False)
    return all(_shapes(a) == _shapes(b) or (told and a.role in ("text", "generate")) for a, b in pairs)


def same_text_shapes(a: Run, b: Run) -> bool:
    """Whether equal kernels computed the text latents of two runs."""
    return [_shapes(call) for call in a.trace.of("text")] == [_shapes(call) for call in b.trace.of("text")]


def _equal_latents(a: Call, b: Call, row: int, batch: int) -> bool:
    same_shape = a.output is not None and b.output is not None and a.output.shape == b.output.shape
    return same_shape and same_rows(a.output, b.output, row, batch)


def _shapes(call: Call) -> list[object]:
    # Those of tensors that no role names too: the text features of a network have as many tokens as the longest prompt.
    named = [value.shape for value in call.inputs.values() if isinstance(value, Tensor)]
    # A network may cut what it is masked to, as those that put texts and pictures into one sequence do.
    return [*call.shapes, *named, *call.lengths]


def row_changed(base: Run, other: Run, row: int) -> bool:
    return bool(parting(base, other, row).event) or not bitwise(image_of(base, row), image_of(other, row))


def whole_calls(run: Run) -> bool:
    """Whether every network call holds a row for every prompt.

    Where the prompts are fed in parts, a doubled part may have as many rows as there are prompts, which they are not.
    """
    reading = run.reading
    if not run.trace.of("velocity") or reading.unreadable is not None:
        return True
    calls = 2 if run.subject.spec.guidance_layout.startswith("separate") else 1
    return all(len(evaluation.calls) <= calls for evaluation in reading.evaluations)


def parting(base: Run, other: Run, row: int) -> Parting:
    """Where a row first differs, in the order of the calls."""
    batch, whole = base.case.batch, whole_calls(base)
    for a, b in zip(base.trace.calls, other.trace.calls, strict=False):
        if a.role == "generate" or a.role != b.role or (a.role == "velocity" and not whole):
            continue
        if a.role != "text" and not same_rows(a.inputs.get("x"), b.inputs.get("x"), row, batch):
            return Parting(f"first at the input of {a.name}", _cause_before(a))
        if _has_rows(a) and not same_rows(a.output, b.output, row, batch):
            return Parting(f"first at the output of {a.name}", _cause_inside(a, base))
    return Parting()


def _has_rows(call: Call) -> bool:
    """Whether what a call returned is known to have a row for every prompt that it was given.

    Of a text encoder that answers with the tokens of each prompt in a list, the first prompt's are seen.
    """
    ids = call.inputs.get("input_ids")
    known = isinstance(ids, Tensor) and call.output is not None and call.output.dim() and len(ids) == len(call.output)
    return call.role != "text" or bool(known)


def _cause_before(call: Call) -> str:
    if call.role == "velocity" and call.number == 0:
        return "the initial state of a row is made from other rows (a norm or a mapping over the flattened batch)"
    return "the update of the state mixes rows (a norm or a value per row taken over the batch)"


def _cause_inside(call: Call, run: Run) -> str:
    if call.dropout:
        return f"{call.role} holds dropout or batch norm in train mode (see FM714)"
    if call.role == "text":
        return "the text encoder mixes rows (statistics over the batch, attention over a flattened batch, no mask)"
    mixed = f"{call.role} mixes rows (statistics over the batch axis, attention over a flattened batch"
    x = call.inputs.get("x")
    if isinstance(x, Tensor) and x.dim() == 4 and {len(x), run.case.batch} & set(x.shape[2:]):
        return f"{mixed}, a value per row spread along height or width because the rows are as many)"
    return mixed + ")"


def half_of_digits(run: Run, reference: Tensor) -> float:
    """Half of the digits of the coarser of image and network, of the largest value."""
    require(reference.is_floating_point(), "the result is no floating tensor (see FM704)")
    coarsest = max(half_digits(dtype) for dtype in (run.case.torch_dtype, reference.dtype))
    return coarsest * float(reference.double().abs().max())


def image_digits(run: Run) -> float:
    """Half of the digits of the images, times what guidance may make of a rounding error: `|1 + w| + |w|`.

    Raises:
        NotInformative: that is as much as the images.
    """
    weight = run.subject.spec.guidance_weight(run.case.guidance_scale)
    factor = max(1.0, abs(1 + weight) + abs(weight))
    allowed = factor * half_of_digits(run, run.result)
    enough = allowed < float(run.result.double().abs().max()) / 2
    require(enough, f"guidance {run.case.guidance_scale:g} makes rounding of a kernel as large as the picture")
    return allowed


def same_images(base: Run, other: Run, message: str) -> Iterator[Check]:
    require(base.result.shape == other.result.shape, "the two runs return images of different shapes (see FM702)")
    require_finite(base.result, other.result)
    for row in range(base.case.batch):
        place = f"row {row} of {base.case.batch}"
        yield close(image_of(other, row), image_of(base, row), image_digits(base), message, where=place)


def close(
    found: Tensor, expected: Tensor, allowed: float, message: str, *, where: str = "", diagnosis: str | None = None
) -> Check:
    change = float((found.double() - expected.double()).abs().max())
    text = f"{message}: largest change {change:.3g}, allowed {allowed:.3g}"
    return within(change, allowed, text, where=where, diagnosis=diagnosis)
