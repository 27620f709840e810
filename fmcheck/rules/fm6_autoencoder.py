"""FM6: autoencoder chain: what is decoded, the order of the calls, scale once, nothing swallowed."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from fmcheck.flow import channelwise
from fmcheck.plan import Plan, Run, Wish
from fmcheck.record.disturb import InjectedFault
from fmcheck.record.reading import Move
from fmcheck.record.trace import Call
from fmcheck.rules.evidence import bitwise, exact, given, require, require_finite, require_finite_move, within
from fmcheck.rules.fm5_explain import explain_update
from fmcheck.rules.fm5_integration import before_end, step_error, worst
from fmcheck.rules.pictures import altered_pictures
from fmcheck.rules.registry import Check, rule
from fmcheck.spec import FlowSpec
from fmcheck.tensors import describe, joined
from fmcheck.tolerance import EXPLAINED, fit_bound, fit_errors, gamma, image_bound, move_bound


@rule(
    "FM601",
    "wrong-tensor-decoded",
    conventions=("latent_scale", "latent_shift", "token_patch"),
    needs=("velocity", "decode"),
)
def wrong_tensor_decoded(run: Run) -> Iterator[Check]:
    """What enters the autoencoder is the integrated conditional state: `x_K = x_{K-1} + dt v`, B rows.

    How it goes wrong: the scratch tensor `x_cat`, the velocity, the unconditional half, the state before the last step
    or the initial state is decoded; the rows are in another order. The picture comes out all the same.

    Checked: the first tensor that enters `sample` (or `decode`) after the last velocity call, against the state that
    the last recorded velocity leads to. A last step of another length or guidance weight is left to FM303 and FM203,
    unless a known other tensor is what is decoded.

    Fix: decode the variable that the loop updates. Source: development log, defect 8.
    """
    reading = run.reading
    seen = given(reading.terminal_input, "nothing entered the autoencoder after the loop (see FM602)")
    final = reading.final
    require(
        final is not None or not _unpacked(seen, reading.initial),
        f"{describe(seen)} enters the autoencoder, perhaps the state {describe(reading.initial)} in another layout: "
        "declare FlowSpec.token_patch, or the function that unpacks it as `sample`",
    )
    yield exact(
        final is not None,
        f"{describe(seen)} enters the autoencoder, expected the state {describe(reading.initial)}",
        where=_entry(run),
        diagnosis="both guidance halves are decoded (x_cat)" if len(seen) == 2 * run.case.batch else None,
    )
    last = next((move for move in reading.moves if move.last), None)
    if last is not None:
        require_finite_move(last)
        yield _last_step(run, last)


def _unpacked(seen: Tensor, state: Tensor) -> bool:
    """Whether tokens were folded to a latent between the loop and the autoencoder: as many numbers in other axes."""
    return seen.dim() != state.dim() and len(seen) == len(state) and seen.numel() == state.numel()


def _last_step(run: Run, last: Move) -> Check:
    used, allowed = worst(last.leftover, fit_bound(last))
    cause = None
    if last.step < len(run.reading.steps_dt):
        error, bound = step_error(run, last)
        cause = None if bool((error <= bound).all()) else _other_tensor(run, last)
        # A step of another length or weight is FM303's and FM203's; here it only must be one, and no other tensor.
        if cause or not used <= allowed or not _is_a_step(last):
            used, allowed = worst(error, bound)
    return within(
        used,
        allowed,
        f"the decoded tensor is {used:.3g} away from the integrated state, rounding allows {allowed:.3g}",
        where=_entry(run),
        diagnosis=lambda: cause or explain_update(last, before_end(run, last)),
    )


def _is_a_step(last: Move) -> bool:
    fitted = last.coefficients
    return fitted.determined and fitted.dt > fit_errors(last).dt


def _entry(run: Run) -> str:
    return "input of sample" if run.trace.of("sample") else "input of decode"


def _other_tensor(run: Run, last: Move) -> str | None:
    """The known wrong tensor that is decoded."""
    end = last.end.double()
    for candidate, text in _wrong_tensors(run, last):
        gap = (end - candidate.double()).abs()
        # The start of a step that hardly moves is near its end too.
        if bool((gap <= move_bound(last, 0.0, 0.0) + EXPLAINED * last.delta.abs().max()).all()):
            return text
    return None


def _wrong_tensors(run: Run, last: Move) -> Iterator[tuple[Tensor, str]]:
    reading, spec = run.reading, run.subject.spec
    dt, w, start = float(reading.steps_dt[last.step]), reading.weight, last.start.double()
    guided = last.cond if last.uncond is None else (1 + w) * last.cond - w * last.uncond
    right = start + dt * guided
    yield start, "the state before the last step is decoded"
    yield reading.initial, "the initial state is decoded"
    yield guided, "the velocity is decoded"
    yield last.cond, "the conditional velocity is decoded"
    if last.uncond is not None:
        yield last.uncond, "the unconditional velocity is decoded"
        # Where all steps go along v_uncond, the halves are swapped (FM203, FM205) and the right tensor is decoded.
        if any(move.coefficients.weight + 1 > EXPLAINED for move in reading.full_moves if not move.last):
            yield start + dt * last.uncond, "the unconditional half of the state is decoded"
    for order in _orders(len(right)):
        yield right[order], "the rows of the state are in another order"
    if _others_have_their_lengths(run):
        # Otherwise the last step is of another length too, and these would only be a way to say so.
        yield (start + right) / 2, "the mean of the last two states is decoded"
        yield right + dt * guided, "the last increment is added twice"
    yield from _wrong_units(right, spec, inline=reading.unscaled_from is not None)


def _others_have_their_lengths(run: Run) -> bool:
    moves = [move for move in run.reading.full_moves if not move.last and move.coefficients.determined]
    expected = run.reading.steps_dt.tolist()
    return all(abs(move.coefficients.dt - expected[move.step]) <= EXPLAINED * expected[move.step] for move in moves)


def _wrong_units(right: Tensor, spec: FlowSpec, *, inline: bool) -> Iterator[tuple[Tensor, str]]:
    """The state in other units than its own, as it is recovered from what the decoder (or `sample`) was given."""
    if (spec.latent_scale, spec.latent_shift) == (1.0, 0.0) or spec.token_patch is not None:
        return
    scale, shift = channelwise(spec.latent_scale, right), channelwise(spec.latent_shift, right)
    if inline:
        yield right / scale + shift, "scale and shift are applied twice on the way to the decoder"
        yield (right - shift) * scale, "neither scale nor shift is applied on the way to the decoder"
        yield right - shift * scale, "the shift is missing on the way to the decoder"
        yield right * scale**2, "the state is multiplied by the scale on the way to the decoder, expected divided"
        yield right * scale, "the scale is missing on the way to the decoder"
        return
    yield right / scale + shift, "the state is unscaled before it enters sample"
    yield right * scale, "the state is scaled once more after the loop"


def _orders(rows: int) -> Iterator[list[int]]:
    """Rotations and the reversal of the rows."""
    forward = list(range(rows))
    for shift in range(1, rows):
        yield forward[-shift:] + forward[:-shift]
    if rows > 2:
        yield forward[::-1]


@rule("FM602", "broken-codec-chain", needs=("velocity", "decode"))
def broken_codec_chain(run: Run) -> Iterator[Check]:
    """After the loop each row goes through `sample` and `decode` exactly once, in that order, and nothing else.

    How it goes wrong: inference uses another pair of functions than training (`latents_to_pixels` in place of
    `sample` and `decode`), sample is left out or called twice, the latent is changed between the two calls, an image
    is encoded again on the way.

    Checked: the calls of the codec points after the last velocity call, the rows that pass through each, and that
    decode gets what sample returned, bit for bit. Calls on parts of the batch are fine.

    Fix: `decode(sample(x))`, as training's encode chain reversed. Source: development log, defect 2.
    """
    require(bool(run.trace.of("velocity")), "the velocity network was never called")
    after, batch = run.reading.after_loop, run.case.batch
    for role in ("sample", "decode"):
        if role in run.subject.points:
            rows = sum(_rows(call) for call in after if call.role == role)
            yield exact(
                rows == batch or (rows == 2 * batch and _decodes_both(run)),
                f"{rows} rows went through {role} after the loop, expected {batch}",
                where=role,
                diagnosis=_explain_rows(after, role, batch, rows),
                # Twice the work for the same picture, and nothing else.
                severity="warning" if rows > batch and _repeats(after, role, batch) else "error",
            )
    yield exact(
        not any(call.role == "encode" for call in run.trace.calls),
        "sampling encodes an image, although it starts from text",
        where="encode",
    )
    if "sample" in run.subject.points:
        yield _hand_over(after)


def _rows(call: Call) -> int:
    x = call.inputs.get("x")
    return len(x) if isinstance(x, Tensor) and x.dim() else 0


def _explain_rows(after: list[Call], role: str, batch: int, rows: int) -> str | None:
    if not rows:
        return f"{role} is never called: inference goes through another function"
    return f"{role} is given the same rows again: a preview of the last step?" if _repeats(after, role, batch) else None


def _repeats(after: list[Call], role: str, batch: int) -> bool:
    """Whether the same B rows go through again, as for a preview of the last step."""
    given = [call.inputs["x"] for call in after if call.role == role and _rows(call)]
    if not given or len({x.shape[1:] for x in given}) > 1 or sum(map(len, given)) % batch:
        return False
    rows = joined(given)
    return all(bitwise(rows[:batch], rows[start : start + batch]) for start in range(batch, len(rows), batch))


def _decodes_both(run: Run) -> bool:
    # 2B rows once through the codec are the wrong tensor (FM601), not a broken chain.
    seen = run.reading.terminal_input
    return seen is not None and len(seen) == 2 * run.case.batch


def _hand_over(after: list[Call]) -> Check:
    sampled = [call.output for call in after if call.role == "sample" and call.output is not None]
    decoded = [call.inputs["x"] for call in after if call.role == "decode" and isinstance(call.inputs.get("x"), Tensor)]
    # An autoencoder of another dtype gets its latents cast on the way, which is no other latent.
    same = bool(sampled) and bool(decoded) and bitwise(joined(sampled).to(decoded[0].dtype), joined(decoded))
    return exact(same, "decode is not given what sample returned", where="between sample and decode")


def _faults(plan: Plan) -> dict[str, Wish]:
    points = plan.subject.points
    return {role: plan.fault(role) for role in ("text", "velocity", "sample", "decode") if role in points}


@rule("FM604", "swallowed-fault", wishes=_faults, judges_crashes=True)
def swallowed_fault(runs: Mapping[str, Run]) -> Iterator[Check]:
    """An exception inside a component reaches the caller of `generate`.

    How it goes wrong: a bare `except` around tiling, offloading or decoding returns a fallback picture; the run goes on
    for an hour and nobody knows that the decoder failed.

    Checked: the recorder raises inside every component in turn; the run must end in that exception, or in one raised
    from it.

    Fix: catch the exception that is meant, and raise from it. Source: fault injection; sglang issue 34514.
    """
    for role, run in runs.items():
        if not run.trace.of(role):
            continue
        yield exact(
            run.trace.error is not None,
            f"an exception inside {role} was swallowed: generate returned {describe(run.trace.result)}",
            where=role,
            diagnosis=f"a broad except around {role}",
        )
        if run.trace.error is not None:
            yield exact(
                _caused_by_fault(run.trace.error),
                f"an exception inside {role} was lost: the caller got {type(run.trace.error).__name__} without a cause",
                where=role,
                severity="warning",
            )


def _caused_by_fault(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, InjectedFault):
            return True
        error = error.__cause__ or error.__context__
    return False


@rule("FM605", "swallowed-nan", wishes=lambda plan: {"nan": plan.nan_velocity, "base": plan.base}, judges_crashes=True)
def swallowed_nan(runs: Mapping[str, Run]) -> Iterator[Check]:
    """A velocity that is NaN shows: the run raises, or the images are NaN.

    How it goes wrong: `nan_to_num` in the loop or after the decoder turns a diverged model into a grey picture that
    passes every later check.

    Checked: the recorder makes every velocity NaN; a finite picture is a finding.

    Fix: let NaN through, or raise. Source: fault injection.
    """
    run = runs["nan"]
    require(runs["base"].failure is None, "the undisturbed run raised (see FM701)")
    result = run.trace.result
    if run.failure is None:
        result = given(result, "generate returned no tensor (see FM702)")
        require(result.is_floating_point(), "the result is no floating tensor, which cannot hold NaN (see FM704)")
    yield exact(
        result is None or run.failure is not None or bool(result.isnan().reshape(len(result), -1).any(1).all()),
        "every velocity was NaN and generate returned finite images",
        where="run nan-velocity",
        diagnosis="NaN is replaced on the way (nan_to_num, or a mask)",
    )


@rule("FM606", "altered-image", conventions=("image_range", "decode_range"), needs=("velocity", "decode"))
def altered_image(run: Run) -> Iterator[Check]:
    """The images are what the decoder returned, clamped and mapped to the declared range and otherwise untouched.

    How it goes wrong: the wrong half of a doubled batch is returned, `(x + 1) / 2` is applied twice or not at all, the
    latent scale is multiplied onto the image, rows change their order.

    Checked: the result against the decoder's output, after the affine map from `decode_range` to `image_range` and a
    clamp. Not informative for results that are not floating tensors.

    Fix: one post-processing step, declared as `decode_range` and `image_range`. Source: MONAI GenerativeModels issue
    212; diffusers issue 2871.
    """
    outputs = [call.output for call in run.reading.after_loop if call.role == "decode" and call.output is not None]
    require(bool(outputs), "decode was not called after the loop")
    decoded, result = joined(outputs), run.result
    if _repeats(run.reading.after_loop, "decode", run.case.batch):
        decoded = decoded[-run.case.batch :]
    require(result.is_floating_point(), "the result is no floating tensor (see FM704)")
    require(result.shape == decoded.shape, f"{describe(result)} came out of {describe(decoded)} (see FM702)")
    yield _image_check(run, decoded, result)


def _image_check(run: Run, decoded: Tensor, result: Tensor) -> Check:
    spec = run.subject.spec
    low, high = spec.image_range
    # Untouched images are the usual case, and pictures are the largest tensors of a run: no arithmetic for them.
    if spec.decode_range in (None, spec.image_range) and (decoded is result or torch.equal(decoded, result)):
        return within(0.0, gamma(1, result.dtype), "", where="result")
    require_finite(decoded, result)
    expected, image = _mapped(decoded.double(), run), result.double()
    error = torch.minimum((image - expected).abs(), (image - expected.clamp(low, high)).abs())
    used, allowed = worst(error, image_bound(expected, spec, result.dtype))
    return within(
        used,
        allowed,
        f"the images are {used:.3g} away from what decode returned, rounding allows {allowed:.3g}",
        where="result",
        diagnosis=lambda: _explain_image(image, expected),
    )


def _mapped(decoded: Tensor, run: Run) -> Tensor:
    spec = run.subject.spec
    low, high = spec.image_range
    start, end = spec.decode_range or spec.image_range
    return (decoded - start) / (end - start) * (high - low) + low


def _explain_image(image: Tensor, expected: Tensor) -> str | None:
    orders = ((expected[order], "the rows are in another order") for order in _orders(len(expected)))
    for candidate, text in (*altered_pictures(expected), *orders):
        if float((image - candidate).abs().max()) <= EXPLAINED:
            return text
    scale = float((image * expected).sum() / (expected * expected).sum())
    if float((image - scale * expected).abs().max()) <= EXPLAINED:
        return f"the images are multiplied by {scale:.4g}"
    return None
