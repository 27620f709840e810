"""FM4: initial state: reshape before projection, no parameters born at inference, layout, drift."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from fmcheck.plan import Plan, Run, Wish
from fmcheck.rules.evidence import bitwise, exact, require
from fmcheck.rules.fm8_rows import close, half_of_digits, same_text_shapes
from fmcheck.rules.registry import Check, rule
from fmcheck.tensors import describe
from fmcheck.tolerance import EXPLAINED


def text_latent(run: Run) -> Tensor:
    """The text latent of the conditional rows, `[B, D]`.

    Raises:
        NotInformative: the flow starts at noise, or the text point gave no row a prompt.
    """
    require(run.subject.spec.initial_state == "text_latent", "the flow starts at noise, not at the text latent")
    outputs = [call.output for call in run.trace.of("text") if call.output is not None]
    require(bool(outputs), "the text point was not called")
    latent = torch.cat(outputs) if len({tuple(o.shape[1:]) for o in outputs}) == 1 else outputs[0]
    batch = run.case.batch
    require(len(latent) in (batch, 2 * batch), f"the text latent has {len(latent)} rows for {batch} prompts")
    first = run.subject.spec.guidance_layout not in ("uncond_first", "separate_uncond_first")
    return (latent[:batch] if first else latent[-batch:]).reshape(batch, -1)


def _needed(run: Run) -> int:
    channels, h, w = run.subject.spec.latent_size(run.case.height, run.case.width)
    return channels * h * w


@rule("FM401", "projected-initial-state", conventions=("initial_state",), needs=("velocity", "text"))
def projected_initial_state(run: Run) -> Iterator[Check]:
    """Where the sizes match, the flow starts at the text latent itself: `x = z_text.reshape(B, C, h, w)`, bit for bit.

    How it goes wrong: a freshly initialised linear layer in place of the reshape, `(h w c)` order, height and width
    exchanged, rows in another order, a scale or noise added on top. The start leaves the distribution that the
    velocity was trained on, and every later step is right for nothing.

    Checked: the state of the first evaluation of every run whose size matches the latent, row by row. It cannot see a
    mistake inside the text encoder.

    Fix: reshape first, project only when `D != C h w`. Source: CrossFlow, arXiv 2412.15213, section 3; development
    log, defect 3.
    """
    latent = text_latent(run)
    require(latent.shape[1] == _needed(run), f"{latent.shape[1]} numbers do not fill a latent of {_needed(run)}")
    initial = run.reading.initial
    shape = (run.case.batch, *run.subject.spec.latent_size(run.case.height, run.case.width))
    require(initial.shape == shape, f"the state is {describe(initial)}, not {list(shape)} (see FM104)")
    expected = latent.reshape(shape).to(initial.dtype)
    gap = float((initial.double() - expected.double()).abs().max())
    yield exact(
        bitwise(initial, expected),
        f"the initial state is not the reshaped text latent; largest difference {gap:.3g}, allowed 0 (bitwise)",
        where="evaluation 0",
        diagnosis=lambda: _explain_start(initial.double(), expected.double()),
    )


def _explain_start(initial: Tensor, expected: Tensor) -> str | None:
    batch, channels, h, w = expected.shape
    flat = expected.reshape(batch, -1)
    orders = (
        (flat.reshape(batch, h, w, channels).permute(0, 3, 1, 2), "the latent is unpacked in (h w c) order"),
        (flat.reshape(batch, channels, w, h).transpose(2, 3), "height and width are exchanged in the reshape"),
        (flat.reshape(batch, w, h, channels).permute(0, 3, 2, 1), "the latent is unpacked in (w h c) order"),
        (expected.flip(2), "the latent is flipped vertically"),
        (expected.flip(3), "the latent is flipped horizontally"),
        (expected.flip(1), "the channels are in reversed order"),
    )
    for candidate, text in orders:
        if _close(initial, candidate):
            return text
    for row in range(batch):
        twin = next((other for other in range(batch) if _close(initial[row], expected[other])), None)
        if twin not in (None, row):
            return f"row {row} starts at the latent of row {twin}"
    for dtype in (torch.bfloat16, torch.float16):
        if torch.equal(initial, expected.to(dtype).double()):
            return f"the latent is rounded to {str(dtype).removeprefix('torch.')}"
    scale = float((initial * expected).sum() / (expected * expected).sum())
    if _close(initial, scale * expected) and abs(scale - 1) > EXPLAINED:
        return f"the latent is multiplied by {scale:.4g}"
    share = abs(float(torch.corrcoef(torch.stack([initial.flatten(), expected.flatten()]))[0, 1]))
    # Two unrelated latents of n numbers correlate by about 1 / sqrt(n); four times that is not a coincidence.
    if share < 4 / expected.numel() ** 0.5:
        return "the start has nothing in common with the text latent: a random projection, or noise"
    added = float((initial - expected).norm() / expected.norm())
    return (
        f"the start correlates with the text latent by {share:.2f} and is {added:.2g} of it away: something is added, "
        "or it is projected"
    )


def _close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and float((a - b).abs().max()) <= EXPLAINED * float(b.abs().max())


@rule("FM402", "silent-fallback", needs=("velocity", "text"))
def silent_fallback(run: Run) -> Iterator[Check]:
    """Where the text latent does not fill the state, the fallback that replaces the reshape warns.

    How it goes wrong: a size that was never trained goes through a projection, and nobody is told; the evaluation
    compares pictures of two different mappings.

    Checked: runs at sizes where `D != C h w`: a Python warning that mentions the latent, the state or its size.

    Fix: `warnings.warn` with both sizes, and a fixed evaluation resolution. Source: rule of the house; development log,
    defect 9.
    """
    latent = text_latent(run)
    require(latent.shape[1] != _needed(run), "the text latent fills the state, no fallback is needed")
    words = ("latent", "state", "resiz", "project", "interpol", "fallback", str(_needed(run)), str(latent.shape[1]))
    said = [text for text in run.trace.warnings if any(word in text.lower() for word in words)]
    yield exact(
        bool(said),
        f"the text latent has {latent.shape[1]} numbers and the state needs {_needed(run)}, but nothing warned",
    )


@rule("FM403", "parameters-born")
def parameters_born(run: Run) -> Iterator[Check]:
    """Sampling makes no parameter, buffer or module: the model has the same ones before and after.

    How it goes wrong: a projection built on the first call for the size at hand, with random weights that no
    checkpoint holds; a layer rebuilt whenever the size changes.

    Checked: registrations of parameters and buffers on any module while `generate` runs, also on modules that are
    thrown away, and names that are new on the model.

    Fix: build in `__init__`, seeded, and save it with the model. Source: rule of the house; development log, defects 3
    and 9; sglang issue 20656.
    """
    new = [*run.trace.born, *(c for c in run.trace.model_changes if c.endswith(" appeared"))]
    yield exact(
        not new,
        f"{len(new)} parameters or buffers were born during sampling: {', '.join(new[:3])}",
        diagnosis="a layer is built at inference, with weights from no checkpoint",
    )


def _there_and_back(plan: Plan) -> dict[str, Wish]:
    return {
        "base": plan.base,
        "again": plan.again,
        "other": plan.other_size,
        "other again": plan.other_size_again,
    }


@rule("FM404", "unstable-mapping", wishes=_there_and_back)
def unstable_mapping(runs: Mapping[str, Run]) -> Iterator[Check]:
    """The initial state of a case is the same before and after the resolution has changed and come back.

    How it goes wrong: the mapping layer is rebuilt for every new size, so that the second visit to a size starts at
    another random projection; a cache is keyed by the wrong size.

    Checked: the initial states of the native size and of another size, each visited twice with the other between.

    Fix: build once, or key the cache by all that matters. Source: development log, defect 9.
    """
    for first, second in (("base", "again"), ("other", "other again")):
        before, after = runs[first].reading.initial, runs[second].reading.initial
        yield exact(
            bitwise(before, after),
            f"the initial state at {runs[first].case.height}x{runs[first].case.width} is another one after a visit to "
            f"another size ({describe(before)} against {describe(after)})",
            where=f"runs {runs[first].name} and {runs[second].name}",
            diagnosis=_why_another(runs[first]),
        )


def _why_another(run: Run) -> str:
    if run.subject.spec.initial_state == "noise":
        return "the noise does not come from the generator of the call alone (see FM705)"
    return "the mapping from text latent to state is rebuilt when the size changes"


def _neighbours(plan: Plan) -> dict[str, Wish]:
    wishes = {"native": plan.base, "other": plan.other_size}
    wishes["native changed"] = plan.neighbours(0)
    wishes["other changed"] = plan.neighbours(0, plan.other_size.case)
    return wishes


@rule("FM405", "mixed-initial-rows", needs=("velocity", "text"), wishes=_neighbours)
def mixed_initial_rows(runs: Mapping[str, Run]) -> Iterator[Check]:
    """The initial state of a row depends on its own prompt alone, on the reshape and on the fallback path.

    How it goes wrong: the batch axis is folded into the reshape, latents are normalised over the batch, a layer norm
    runs over the wrong axis.

    Checked: row 0 of the first state, bit for bit, when the prompts of all other rows change, at the native size and
    at one where the sizes do not match; to half of the digits where the other prompts are longer, since kernels round
    differently over other shapes. Later stages are FM801.

    Fix: keep the batch axis first in every reshape. Source: batch invariance.
    """
    require(runs["native"].case.batch > 1 or runs["other"].case.batch > 1, "a batch of one has no neighbours")
    for name in ("native", "other"):
        before, after = runs[name].reading.initial, runs[f"{name} changed"].reading.initial
        if len(before) == 1 or bitwise(before[1:], after[1:]):
            continue
        mixed = "the initial state of row 0 changes when the prompts of the other rows change"
        where, cause = f"run {runs[name].name}, row 0", "rows are mixed between the text latent and the state"
        if same_text_shapes(runs[name], runs[f"{name} changed"]):
            yield exact(bitwise(before[0], after[0]), mixed, where=where, diagnosis=cause)
        else:
            allowed = half_of_digits(runs[name], before[0])
            yield close(after[0], before[0], allowed, mixed, where=where, diagnosis=cause)
