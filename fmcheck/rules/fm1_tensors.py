"""FM1: shape, rank and dtype of every tensor that crosses an observation point (devices and values: fm1_values)."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from fmcheck.flow import from_argument, to_argument
from fmcheck.plan import Run
from fmcheck.record.trace import Call
from fmcheck.rules.evidence import exact, require, require_finite
from fmcheck.rules.layouts import latent_cause, picture_cause
from fmcheck.rules.registry import Check, rule
from fmcheck.subject import ENTRIES
from fmcheck.tensors import Mismatch, describe
from fmcheck.tolerance import argument_bound, time_bound

_ANY_ASPECT = ("type", "rank", "dtype", "shape")

# cause(run, call, what was found) names the known mistake that makes such a tensor.
Cause = Callable[[Run, Call, object], str | None]


@rule("FM101", "wrong-time-rank", kinds=ENTRIES, judges_crashes=True)
def wrong_time_rank(run: Run) -> Iterator[Check]:
    """The time argument has one axis with one entry a row of the network's batch: `time: Float32[N]` for N rows.

    How it goes wrong: `[N, 1]` or `[N, 1, 1, 1]` made for broadcasting, one number for the whole batch, B entries for
    a state that guidance has doubled to 2B rows. A network that asserts `dim() == 1` raises; one that does not
    multiplies along another axis as soon as two sizes happen to agree.

    Checked: rank and length at every velocity call in sampling and in the loss, also of runs that raised. Dtype is
    FM102; equal values in all rows are FM308.

    Fix: `torch.full((x.shape[0],), value)` next to the call, from the state that is really passed; a network that wants
    another rank declares it in `Subject.annotations`. Source: conditioning by a time per sample, arXiv 2212.09748,
    section 3.2.
    """
    yield from _typed(run, ("velocity.time",), _time_cause, aspects=("type", "rank", "shape"))


def _time_cause(run: Run, call: Call, time: object) -> str | None:
    rows = _rows(call)
    if not isinstance(time, Tensor):
        return "a Python number is passed where the network expects one entry a row"
    if time.dim() == 0:
        return "one number for the whole batch, never expanded to its rows"
    if time.dim() > 1:
        return "axes were added for broadcasting; that is the network's own business"
    if 2 * len(time) == rows:
        return "made for the B prompts, while guidance doubled the state to 2B rows"
    return "made for 2B rows, while the state has B" if len(time) == 2 * rows else None


@rule("FM102", "wrong-time-dtype", kinds=ENTRIES, judges_crashes=True)
def wrong_time_dtype(run: Run) -> Iterator[Check]:
    """The time argument is float32 and was float32 all the way: `time: Float32[N]`, not rounded through a half dtype.

    How it goes wrong: the time is cast to the dtype of the weights, or computed under autocast and cast back. Of 1,001
    evenly spaced times bfloat16 keeps 507, so neighbouring steps are told the same time (or one beside the state's).

    Checked: the dtype at every velocity call. Float32 values of a sampling run are also compared with the spec's grid:
    when every one of them (or the flow time behind it) is a bfloat16 or float16 number, although the grid's are not,
    they came through that dtype. Not informative where the grid itself is representable, such as for one step.

    Fix: keep time arithmetic in float32 outside autocast, and cast the embedding instead. Source: time embeddings in
    half precision, modelscope/DiffSynth-Studio issue 1025.
    """
    yield from _typed(run, ("velocity.time",), _time_dtype_cause, aspects=("dtype",))
    if run.wish.kind == "generate":
        yield _rounding_check(run)


def _time_dtype_cause(run: Run, call: Call, time: object) -> str | None:
    dtype = time.dtype if isinstance(time, Tensor) else None
    if dtype in (torch.bfloat16, torch.float16):
        return "the time was cast to the dtype of the weights"
    if dtype == torch.float64:
        return "the time comes from Python floats, NumPy or a float64 grid without a cast"
    return "integer times lose the fraction of a step"


def _rounding_check(run: Run) -> Check:
    told, spec, reading = _float32_times(run), run.subject.spec, run.reading
    # A correct time is this far from the grid's at most.
    error = time_bound(reading, torch.float32).expand_as(reading.evaluation_times).reshape(-1)
    slope, times = abs(spec.time_map[1]), from_argument(told, spec)
    coarse = [
        (dtype, side)
        for side, seen, scale in (("argument", told, slope), ("flow time", times, 1.0))
        for dtype in (torch.bfloat16, torch.float16)
        if bool((_distance(seen, dtype) <= scale * float(error.max())).all())
    ]
    telling = [(dtype, side) for dtype, side in coarse if _tells(run, times, error, dtype, side)]
    require(not coarse or bool(telling), "the grid's own times are numbers of the half dtypes, or it is another grid")
    found = [f"{str(dtype).removeprefix('torch.')} ({side})" for dtype, side in telling]
    return exact(
        not found,
        f"all {len(told)} float32 times are numbers of {next(iter(found), '')}, and those of the grid are not",
        diagnosis="the time was rounded to that dtype and cast back",
    )


def _tells(run: Run, times: Tensor, error: Tensor, dtype: torch.dtype, side: str) -> bool:
    """Whether these are the grid's times, rounded, and those that they come from are no numbers of the dtype."""
    spec, reference = run.subject.spec, run.reading.evaluation_times.reshape(-1)
    gaps, nearest = (times[:, None] - reference).abs().min(dim=1)
    gap, reference, error = float(gaps.max()), reference[nearest], error[nearest]
    if gap > argument_bound(spec, dtype) + float(error.max()):
        return False  # not this grid rounded: FM303 and FM307 say more
    of_argument = side == "argument"
    scale, values = (abs(spec.time_map[1]), to_argument(reference, spec)) if of_argument else (1.0, reference)
    # Twice the error keeps a correct time off every coarse number.
    return bool((_distance(values, dtype) > 2 * scale * error).any())


def _distance(values: Tensor, dtype: torch.dtype) -> Tensor:
    return (values - values.to(dtype).double()).abs()


def _float32_times(run: Run) -> Tensor:
    """The distinct float32 values that the network was told, as float64 `[M]`."""
    passed = [call.inputs.get("time") for call in run.trace.of("velocity")]
    floats = [time for time in passed if isinstance(time, Tensor) and time.dtype == torch.float32]
    tensors = [time.reshape(-1) for time in floats if not time.is_meta]
    require(bool(tensors), "no time was passed as a float32 tensor")
    told: Tensor = torch.unique(torch.cat(tensors).cpu().double())  # type: ignore[no-untyped-call]
    require_finite(told)
    return told


@rule("FM103", "wrong-null-indicator", needs=("velocity", "velocity.null"), kinds=ENTRIES, judges_crashes=True)
def wrong_null_indicator(run: Run) -> Iterator[Check]:
    """The null indicator is boolean with one entry a row of the network's batch: `null: Bool[N]`.

    How it goes wrong: B entries for 2B rows, `[N, 1]` for broadcasting, a float that is multiplied instead of a flag
    that selects. With B entries the second half silently takes the flags of nobody.

    Checked: rank, length and dtype at every velocity call that passes one, in sampling and in the loss, also of runs
    that raised. Which half it marks is FM201.

    Fix: `null = torch.zeros(x.shape[0], dtype=torch.bool)`, then set the unconditional half. Another form is declared
    in `Subject.annotations`. Source: CrossFlow, arXiv 2412.15213, CFG indicator.
    """
    yield from _typed(run, ("velocity.null",), _null_cause)


def _null_cause(run: Run, call: Call, null: object) -> str | None:
    rows = _rows(call)
    if not isinstance(null, Tensor):
        return "one Python value for the whole batch"
    if null.is_floating_point() and null.dim() > 1 and null.shape[-1] > 1:
        return "this is no indicator; a network without one declares Point(..., arguments={'null': None})"
    if null.dim() != 1:
        return "axes were added for broadcasting; that is the network's own business"
    if null.dtype != torch.bool:
        return "numbers instead of flags: they multiply where a flag selects"
    return "made for the B prompts, while guidance doubled the state to 2B rows" if 2 * len(null) == rows else None


@rule(
    "FM104",
    "wrong-state-shape",
    conventions=("latent_channels", "downsampling", "token_patch", "latent_frames"),
    kinds=ENTRIES,
    judges_crashes=True,
)
def wrong_state_shape(run: Run) -> Iterator[Check]:
    """The state that the network is given has the latent shape of the case: `x: [N, C, H / f, W / f]`, floating.

    How it goes wrong: height and width exchanged, channels last, the native latent size for every request, tokens
    where an image was declared. On square native sizes all of this passes.

    Checked: every velocity call against the case's own height and width, bound for the whole run; several sizes, two
    of them not square, are run. N may be B, 2B or a part of it.

    Fix: derive h and w from the requested size, once. Packed latents are declared in `Subject.annotations`.
    Source: 32-fold, 32-channel latents, DC-AE, arXiv 2410.10733.
    """
    yield from _typed(run, ("velocity.x",), latent_cause)


@rule("FM105", "wrong-velocity-shape", kinds=ENTRIES, judges_crashes=True)
def wrong_velocity_shape(run: Run) -> Iterator[Check]:
    """The velocity has exactly the shape of the state it was asked for: `v.shape == x.shape`, so nothing broadcasts.

    How it goes wrong: `[N, 1, h, w]` or `[1, C, h, w]` is added to the state without complaint; a network with a
    learned variance returns twice the channels; tokens are folded back with height and width exchanged.

    Checked: the output of every velocity call, as the loop receives it, against the declared shape and against its own
    input.

    Fix: fold and split inside the network; name the right element of its return value with `Point.output`.
    Source: dx/dt = v(x, t), flow matching, arXiv 2210.02747, eq. 1.
    """
    for call in run.trace.of("velocity"):
        x, mismatch = call.inputs.get("x"), _mismatches(call).get("velocity.output")
        if mismatch is None and call.output is None:
            continue  # it raised
        if mismatch is None and not (isinstance(x, Tensor) and x.shape != _shape(call.output)):
            yield exact(True, "", where=call.name)
            continue
        message = f"velocity.output: expected the shape of its state {describe(x)}, found {describe(call.output)}"
        cause = _velocity_cause(run, call, call.output)
        yield exact(False, message if mismatch is None else str(mismatch), where=call.name, diagnosis=cause)


def _velocity_cause(run: Run, call: Call, output: object) -> str | None:
    x = call.inputs.get("x")
    if not isinstance(output, Tensor) or not isinstance(x, Tensor):
        return "the network returned no tensor; name the right element with Point.output"
    if output.dim() != x.dim() or output.shape == x.shape:
        return latent_cause(run, call, output)
    if all(a in (1, b) for a, b in zip(output.shape, x.shape, strict=True)):
        return "axes of size 1: the update would broadcast it over the state"
    if output.dim() > 1 and output.shape[1] == 2 * x.shape[1]:
        return "twice the channels: a learned variance was not split off"
    return latent_cause(run, call, output)


@rule(
    "FM106",
    "wrong-latent-shape",
    conventions=("initial_state", "latent_channels", "downsampling"),
    kinds=ENTRIES,
    judges_crashes=True,
)
def wrong_latent_shape(run: Run) -> Iterator[Check]:
    """Latents have one shape from end to end: `[N, D]` out of `text`, `[N, C, h, w]` from `encode` to `decode`.

    How it goes wrong: token features instead of a pooled latent, mean and log-variance still in one tensor, a latent
    of the native size decoded at every size, height and width exchanged on the way to the decoder.

    Checked: every call of the declared `text`, `encode`, `sample` and `decode` points, in sampling and in the loss.
    Which tensor it is that gets decoded is FM601.

    Fix: reshape where the layout changes, and nowhere else; other layouts are declared in `Subject.annotations`.
    Source: text latent of the size of the image latent, CrossFlow, arXiv 2412.15213.
    """
    tensors = ("text.output", "encode.output", "sample.x", "sample.output", "decode.x")
    yield from _typed(run, tensors, latent_cause)


@rule("FM107", "wrong-decoded-shape", kinds=ENTRIES, judges_crashes=True)
def wrong_decoded_shape(run: Run) -> Iterator[Check]:
    """Pictures have the size of the case: `decode`'s output, `encode`'s input and the entry's images `[N, ch, H, W]`.

    How it goes wrong: a decoder that returns another multiple of the latent size, a size rounded to what the model
    prefers, channels last, height and width exchanged between encoding and decoding.

    Checked: every call of `decode`, `encode` and of the public entry (whose images have B rows). An entry that returns
    no tensor is left to FM702, which judges what the subject makes of it.

    Fix: take the size from the request in every place. Source: `[B, 3, H, W]` by the autoencoder's downsampling
    factor, DC-AE, arXiv 2410.10733.
    """
    tensors = ("encode.x", "decode.output", "generate.output")
    yield from _typed(run, tensors, picture_cause)


def _typed(run: Run, tensors: tuple[str, ...], cause: Cause, aspects: tuple[str, ...] = _ANY_ASPECT) -> Iterator[Check]:
    """A check for every time that one of `tensors` crossed its boundary; other aspects are another rule's."""
    crossed = [(call, tensor) for call in run.trace.calls for tensor in tensors if _crossed(call, tensor)]
    require(bool(crossed), f"nothing passed as {' or '.join(tensors)}")
    for call, tensor in crossed:
        mismatch = _mismatches(call).get(tensor)
        if mismatch is None:
            yield exact(True, "", where=call.name)
        elif mismatch.aspect in aspects:
            yield exact(False, str(mismatch), where=call.name, diagnosis=cause(run, call, _value(call, tensor)))


def _crossed(call: Call, tensor: str) -> bool:
    return tensor.startswith(f"{call.role}.") and (
        _value(call, tensor) is not None or (tensor in _mismatches(call) and call.role != "generate")
    )


def _value(call: Call, tensor: str) -> object:
    name = tensor.partition(".")[2]
    return call.output if name == "output" else call.inputs.get(name)


def _mismatches(call: Call) -> dict[str, Mismatch]:
    return {mismatch.tensor: mismatch for mismatch in call.mismatches}


def _rows(call: Call) -> int:
    x = call.inputs.get("x")
    return len(x) if isinstance(x, Tensor) and x.dim() else 0


def _shape(tensor: Tensor | None) -> torch.Size | None:
    return None if tensor is None else tensor.shape
