"""FM6 on units: the scale and shift between the state and the decoder's latent."""

from collections.abc import Iterator

from torch import Tensor

from fmcheck.flow import channelwise, to_decoder
from fmcheck.plan import Run
from fmcheck.record.reading import as_state
from fmcheck.rules.evidence import given, require, require_finite, within
from fmcheck.rules.fm5_integration import worst
from fmcheck.rules.registry import Check, rule
from fmcheck.spec import FlowSpec
from fmcheck.tensors import describe
from fmcheck.tolerance import EXPLAINED, coarser, scale_bound, unscale_bound


@rule(
    "FM603",
    "wrong-latent-scale",
    conventions=("latent_scale", "latent_shift", "unscale_before_decode"),
    needs=("velocity", "sample", "decode"),
)
def wrong_latent_scale(run: Run) -> Iterator[Check]:
    """The decoder is given latents in its own units: `state / latent_scale + latent_shift`, applied exactly once.

    How it goes wrong: the scale is left out, applied twice, multiplied instead of divided, or the shift is forgotten.
    Colours fade or burn, and the picture stays recognisable.

    Checked: the input of decode against the state that entered `sample`, with three roundings allowed. Where the
    scale is undone inline, without a function to observe, FM601 says what is wrong with it. Not informative where
    `decode` undoes the scale itself (`unscale_before_decode = false`).

    Fix: one place that scales, one that unscales. Source: latent diffusion's scale factor, arXiv 2112.10752, section
    G; diffusers issues 8708 and 6725.
    """
    spec, reading = run.subject.spec, run.reading
    require(spec.unscale_before_decode, "decode undoes the scale itself, where it cannot be seen")
    require(reading.entered("sample") is not None, "sample was not called after the loop (see FM602)")
    state = given(reading.final, "the state does not enter the codec with its own shape (see FM601)")
    fed = given(reading.entered("decode"), "decode was not called with a tensor after the loop (see FM602)")
    if spec.token_patch is not None:
        fed = given(as_state(fed, spec), f"decode is given {describe(fed)}, which cannot be packed to tokens")
        require(fed.shape == state.shape, f"decode is given {describe(fed)} for a state {describe(state)}")
        require_finite(state, fed)
        used, allowed = worst((fed - state.double()).abs(), unscale_bound(state.double(), spec, state.dtype))
        message = f"the decoder's input, packed and in the units of the state, is {used:.3g} away from the state"
        yield within(used, allowed, message, where="input of decode")
    else:
        yield _unpacked_input(run, state, fed)


def _unpacked_input(run: Run, state: Tensor, fed: Tensor) -> Check:
    spec = run.subject.spec
    require(fed.shape == state.shape, f"decode is given {describe(fed)} for a state {describe(state)}")
    require_finite(state, fed)
    expected = to_decoder(state.double(), spec)
    dtype = coarser(state.dtype, fed.dtype)
    used, allowed = worst((fed.double() - expected).abs(), scale_bound(expected, spec, dtype))
    return within(
        used,
        allowed,
        f"the decoder's input is {used:.3g} away from {_formula(spec)}, rounding allows {allowed:.3g}",
        where="input of decode",
        diagnosis=lambda: _explain_scale(fed.double(), state.double(), spec),
    )


def _formula(spec: FlowSpec) -> str:
    scale, shift = spec.latent_scale, spec.latent_shift
    if isinstance(scale, tuple) or isinstance(shift, tuple):
        return "state / latent_scale + latent_shift, channel by channel"
    return f"state / {scale:g} + {shift:g}"


def _explain_scale(fed: Tensor, state: Tensor, spec: FlowSpec) -> str | None:
    scale, shift = channelwise(spec.latent_scale, state), channelwise(spec.latent_shift, state)
    once = state / scale + shift
    candidates = (
        (state, "neither scale nor shift is applied"),
        (once / scale + shift, "scale and shift are applied twice"),
        (state / scale, "the shift is missing"),
        (state + shift, "the scale is missing"),
        (state * scale + shift, "the state is multiplied by the scale, expected divided"),
        (state * scale, "the state is multiplied by the scale, expected divided, and the shift is missing"),
        ((state - shift) * scale, "the state is scaled for the flow once more, expected unscaled"),
        (state / scale - shift, "the shift has the wrong sign"),
        ((state + shift) / scale, "the shift is added before the division"),
    )
    for candidate, text in candidates:
        if float((fed - candidate).abs().max()) <= EXPLAINED * float(fed.abs().max()):
            return text
    return None
