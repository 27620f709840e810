"""FM7: the evaluation interface: what `generate()` returns, in which range and dtype, and what it must refuse."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from fmcheck.plan import Plan, Run, Wish
from fmcheck.record.points import find_output
from fmcheck.rules.evidence import exact, require, require_finite, within
from fmcheck.rules.layouts import picture_cause
from fmcheck.rules.registry import Check, rule
from fmcheck.subject import ENTRIES
from fmcheck.tensors import describe
from fmcheck.tolerance import range_bound


@rule("FM701", "generate-raises", kinds=ENTRIES, judges_crashes=True)
def generate_raises(run: Run) -> Iterator[Check]:
    """A valid case runs to its end: no size, step count, guidance scale or batch that the subject allows raises.

    How it goes wrong: a name that only one branch defines, an assertion inside the network about a tensor that the
    loop builds otherwise, a batch of one that is squeezed away, a scale of 0 that leaves a variable unset.

    Checked: every plain run and the training loss. The finding names the observed call and the line of code; when a
    tensor was wrong before the exception, it is named as the cause. Running out of memory is its own outcome.

    Fix: see the named line. A size or step count that the model cannot do belongs into the subject's `case` and
    `size_multiple`. Source: `generator` undefined in `generate()`, the development log of 2025-08-26, defect 1.
    """
    yield exact(
        run.failure is None,
        f"a valid case must run, but {run.failure}",
        where=_place(run) if run.failure else "",
        diagnosis=lambda: _earlier_mismatch(run),
    )


# What stands between the model and whoever called it.
_BETWEEN = tuple(str(Path(__file__).parents[1] / part) for part in ("record", "subjects"))


def _place(run: Run) -> str:
    """The innermost observed call that the exception left, and the innermost line outside installed packages."""
    left = [call.name for call in run.trace.calls if call.error is not None and call.role not in ENTRIES]
    others = [frame for frame in run.trace.raised_in if not frame.filename.startswith(_BETWEEN)]
    own = [frame for frame in others if "site-packages" not in frame.filename] or others
    lines = [f"{Path(frame.filename).name}:{frame.lineno} in {frame.name}" for frame in own[-1:]]
    return ", ".join([*left[-1:], *lines])


def _earlier_mismatch(run: Run) -> str | None:
    found = [str(mismatch) for call in run.trace.calls for mismatch in call.mismatches]
    return next(iter(found), None)


@rule("FM702", "wrong-image-shape")
def wrong_image_shape(run: Run) -> Iterator[Check]:
    """The result is one picture a prompt in the requested size: `[B, channels, H, W]`, channels first.

    How it goes wrong: both guidance halves are returned, channels last for a plotting library, the native size for
    every request, height and width exchanged, only the first prompt.

    Checked: the tensor that the subject's `generate` returns in every run, two of them not square.

    Fix: return the decoded conditional rows; convert layouts in the code that plots. Source: the development log of
    2025-08-26, defect 1: "not the cond half, not [B, 3, H, W] in [-1, 1]".
    """
    case, channels = run.case, run.subject.spec.image_channels
    expected = (case.batch, channels, case.height, case.width)
    found = run.trace.result
    shown = describe(run.trace.returned if found is None else found)
    yield exact(
        found is not None and tuple(found.shape) == expected,
        f"generate returned {shown}, expected {list(expected)}",
        diagnosis=lambda: _image_cause(run, found),
    )


def _image_cause(run: Run, found: Tensor | None) -> str | None:
    if found is None:
        return "no tensor in what was returned; let the subject's generate return a torch tensor [B, channels, H, W]"
    if found.dim() == 4 and len(found) == 1 < run.case.batch:
        return "only the first prompt has a picture"
    return picture_cause(run, None, found)


@rule("FM703", "out-of-range", conventions=("image_range",))
def out_of_range(run: Run) -> Iterator[Check]:
    """Pictures lie within the declared range, `low <= value <= high`, and use it.

    How it goes wrong: `(x + 1) / 2` forgotten or done twice, grey levels from 0 to 255, an unclamped decoder, a
    diverged state that saturates every pixel, a decoder fed zeros that returns one colour.

    Checked: every value of every result against `image_range`, with the roundings of a last mapping to that range.
    Pictures of one single colour, and unguided runs in which more than half of the values of every picture sit exactly
    on the limits, are warnings; strong guidance saturates pictures by itself (Imagen, arXiv 2205.11487, section 2.3).
    A range used only in part cannot be told from a dark picture.

    Fix: clamp or squash once, after the decoder; declare the range with `image_range`. Source: images in [-1, 1],
    DC-AE, arXiv 2410.10733.
    """
    images = run.result.detach()
    require(images.is_floating_point(), "the result is not a floating tensor (see FM704)")
    require(images.numel() > 0, "the result is empty (see FM702)")
    require_finite(images)
    low, high = run.subject.spec.image_range
    least, most = (float(extreme) for extreme in images.aminmax())
    yield within(
        max(low - least, most - high, 0.0),
        range_bound(low, high, images.dtype),
        f"values from {least:.6g} to {most:.6g}, declared range {low:g} to {high:g}",
        diagnosis=_range_cause((least, most), (low, high)),
    )
    yield _one_colour(images)
    unguided = run.subject.spec.guidance_weight(run.case.guidance_scale) == 0
    # Pictures are the largest tensors of a run; where none reaches a limit there is nothing to count.
    reached = least <= low or most >= high
    yield _saturated(images, low, high) if unguided and reached else exact(True, "")


def _range_cause(found: tuple[float, float], declared: tuple[float, float]) -> str:
    least, most = found
    if declared[1] <= 1 and least >= 0 and 2 < most <= 255:
        return "grey levels from 0 to 255"
    if declared == (0.0, 1.0) and least >= -1 and most <= 1:
        return "pictures in [-1, 1] that were never mapped to [0, 1]"
    return "the decoder's output is neither clamped nor squashed, or mapped to its range twice"


def _one_colour(images: Tensor) -> Check:
    planes = images.reshape(*images.shape[:-2], -1) if images.dim() > 2 else images
    # A few pixels show that most pictures are not flat.
    few = planes[..., :: max(1, planes.shape[-1] // 64)]
    flat = _all_equal(few)
    if bool(flat.any()):
        flat = _all_equal(planes)
    message = f"{int(flat.sum())} of {len(flat)} pictures are a single colour"
    return exact(
        not bool(flat.any()), message, severity="warning", diagnosis="the decoder is fed zeros, or NaN upstream"
    )


def _all_equal(planes: Tensor) -> Tensor:
    """Whether every plane of a picture is one number, `[B]`."""
    return (planes == planes[..., :1]).reshape(len(planes), -1).all(dim=1)


def _saturated(images: Tensor, low: float, high: float) -> Check:
    on_limit = ((images == low) | (images == high)).reshape(len(images), -1)
    counts = on_limit.sum(dim=1)
    everywhere = bool((2 * counts > on_limit.shape[1]).all())
    least = int(counts.min())
    message = f"at least {least} of {on_limit.shape[1]} values of every picture are exactly {low:g} or {high:g}"
    return exact(not everywhere, message, severity="warning", diagnosis="the state has left the range of the decoder")


@rule("FM704", "wrong-image-dtype")
def wrong_image_dtype(run: Run) -> Iterator[Check]:
    """The result is a floating tensor in float32 or in the dtype that the case asks for, cut off from the graph.

    How it goes wrong: bytes are returned where the metric expects [-1, 1], half precision leaks out of autocast into
    an evaluation that sums over a million pixels, float64 out of NumPy.

    Checked: the dtype of the result of every run. A result that still requires grad keeps the activations of every
    step alive; its numbers are right, so that is a warning.

    Fix: `images.float()` at the end of `generate()`; turn into bytes in the code that writes files. Source: the
    evaluation interface of the development log of 2025-08-26.
    """
    images, dtype = run.result, run.result.dtype
    allowed = {torch.float32, run.case.torch_dtype}
    yield exact(
        dtype in allowed,
        f"the result is {describe(images)}, expected {' or '.join(sorted(map(_short, allowed)))}",
        diagnosis=None if dtype.is_floating_point else "converted for a file format inside generate",
    )
    returned = find_output(run.trace.returned, None)
    tied = returned is not None and returned.requires_grad
    yield exact(not tied, "the result requires grad; it is still tied to its graph", severity="warning")


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _impossible(plan: Plan) -> Mapping[str, Wish]:
    return {"base": plan.base, **plan.impossible_sizes}


@rule(
    "FM712",
    "impossible-size-accepted",
    conventions=("size_multiple", "illegal_sizes"),
    wishes=_impossible,
    judges_crashes=True,
)
def impossible_size_accepted(runs: Mapping[str, Run]) -> Iterator[Check]:
    """A size that the model cannot make is refused: H and W that are no multiples of the spec's `multiple` raise.

    How it goes wrong: integer division rounds the latent size down and a smaller picture comes out, which a data
    loader then resizes; or one axis is validated and the other is not.

    Checked: a height one pixel too large and a width half a latent cell too large. Any exception is right, however
    deep; so is the next smaller legal size, where the spec declares that. Not informative when every size is possible.

    Fix: validate height and width at the top of `generate()` with a message that names the multiple. Source: sizes
    accepted and rounded, huggingface/diffusers issues 10673 and 13605.
    """
    require(len(runs) > 1, "every size is possible at a size multiple of 1")
    require(runs["base"].failure is None, "the native size raises too (see FM701)")
    for name, run in ((name, run) for name, run in runs.items() if name != "base"):
        multiple, case = run.subject.spec.multiple, run.case
        declared = run.subject.spec.illegal_sizes == "rounded_down" and _rounded_down(run)
        yield exact(
            run.trace.error is not None or declared,
            f"{case.height}x{case.width} ({name}) is no multiple of {multiple}, but generate returned "
            f"{describe(run.trace.returned if run.trace.result is None else run.trace.result)}",
            where=f"run {run.name}",
            diagnosis=_size_cause(run),
        )


def _rounded_down(run: Run) -> bool:
    images, multiple = run.trace.result, run.subject.spec.multiple
    rounded = [side // multiple * multiple for side in (run.case.height, run.case.width)]
    return images is not None and images.dim() == 4 and list(images.shape[2:]) == rounded


def _size_cause(run: Run) -> str | None:
    return "the size is silently rounded down" if _rounded_down(run) else None
