"""The latent, the autoencoder, the text encoder and the pictures: told from what the final state turned into."""

from typing import Any

import torch
from torch import Tensor

from fmcheck.init.explore import Seen, Watched
from fmcheck.init.fit_latent import LatentFit, fit_latent
from fmcheck.init.fit_time import TimeFit
from fmcheck.init.proposal import Proposal
from fmcheck.init.roles import Evaluation, Velocity

__all__ = ["propose_latent", "propose_text"]


def _guided(evaluation: Evaluation, proposal: Proposal, t: float) -> Tensor:
    """dx/dt of one evaluation under what was proposed so far."""
    value, a, b = proposal.value, evaluation.first, evaluation.second
    prediction: Tensor = a
    if b is not None:
        first = value("guidance_layout", "cond_first") in ("cond_first", "separate")
        c, u = (a, b) if first else (b, a)
        scale = proposal.driver.case.guidance_scale
        weight = scale if value("guidance_formula") == "cond_plus" else scale - 1
        prediction = (1 + weight) * c - weight * u
        axes = list(range(1, c.dim()))
        if value("guidance_norm") == "row":
            prediction = prediction * _norm(c) / _norm(prediction)
        elif value("guidance_norm") == "last_axis":
            prediction = prediction * c.norm(dim=-1, keepdim=True) / prediction.norm(dim=-1, keepdim=True)
        phi: float = value("guidance_rescale", 0.0)
        spread = c.std(dim=axes, keepdim=True) / prediction.std(dim=axes, keepdim=True)
        prediction = prediction * (phi * spread + 1 - phi)
    kind: str = value("prediction")
    x = evaluation.x
    if kind == "x1":
        prediction = (prediction - x) / (1 - t)
    elif kind == "x0":
        prediction = (x - prediction) / t
    velocity: Tensor = -prediction if kind == "reverse_velocity" else prediction
    return velocity


def _norm(prediction: Tensor) -> Tensor:
    """The norm of every row, shaped to multiply it."""
    norms: Tensor = prediction.flatten(1).norm(dim=1)
    return norms.reshape(-1, *(1,) * (prediction.dim() - 1))


def _final(proposal: Proposal, found: list[Evaluation], time: TimeFit, stages: int) -> Tensor:
    """The state at t = 1, by the last step under what was proposed so far."""

    def at(evaluation: Evaluation) -> float:
        return (evaluation.time - time.offset) / time.slope

    steps = proposal.driver.case.num_steps
    last = found[(steps - 1) * stages :]
    size = 1 - (at(last[0]) if time.point == "left" else time.edges[-1])
    velocities = [_guided(e, proposal, at(e)) for e in last]
    change = velocities[-1] if time.solver != "heun" or len(last) == 1 else sum(velocities[1:], velocities[0]) / 2
    return last[0].x + size * change


def propose_latent(
    proposal: Proposal, base: Watched, found: list[Evaluation], network: Velocity, time: TimeFit, stages: int
) -> None:
    """Propose channels, downsampling, layout, scale, shift, and the points `sample` and `decode`."""
    case = proposal.driver.case
    final = _final(proposal, found, time, stages)
    after = base.of(network.path)[-1].start
    fit = fit_latent(base, final, after, (case.batch, case.height, case.width))
    if fit is None:
        proposal.unknown.append(
            "decode: no call after the loop takes an affine function of the final state and makes pictures; rules on "
            "the last step and the autoencoder are skipped (name the decoder by hand)"
        )
        _from_state(proposal, final)
        return
    _decoder(proposal, fit)
    z = fit.decode.inputs[fit.decode_input]
    for name, value in fit.fields.items():
        proposal.set(name, value, f"state {tuple(final.shape)} and decoder input {tuple(z.shape)}")
    _geometry(proposal, z)


def _geometry(proposal: Proposal, z: Tensor) -> None:
    case = proposal.driver.case
    down = case.height // z.shape[-2]
    proposal.set("downsampling", down, f"{case.height}x{case.width} pictures of {z.shape[-2]}x{z.shape[-1]} latents")
    if z.dim() == 5:
        proposal.set("latent_frames", z.shape[2], f"latents {tuple(z.shape)}")
    patch = proposal.value("token_patch", 1)
    if patch > 1:
        proposal.set("size_multiple", down * patch, f"tokens of {patch}x{patch} cells")
        return
    refused = [m for m in (1, 2) if not _works(proposal, case.height + m * down)]
    if refused == [1]:
        proposal.set(
            "size_multiple", 2 * down, f"height {case.height + down} is refused, {case.height + 2 * down} is not"
        )


def _works(proposal: Proposal, height: int) -> bool:
    watched = proposal.driver.tried(height=height, num_steps=2)
    try:
        return watched is not None and proposal.driver.images(watched).shape[-2] == height
    except StopIteration:
        return False


def _from_state(proposal: Proposal, state: Tensor) -> None:
    if state.dim() < 4:
        proposal.missing.append(
            "token_patch, latent_channels, downsampling: the state is a sequence, its latent was not seen"
        )
        return
    proposal.set("latent_channels", state.shape[1], f"state {tuple(state.shape)}")
    _geometry(proposal, state)


def _decoder(proposal: Proposal, fit: LatentFit) -> None:
    affine, decode = fit.affine, fit.decode
    why = f"{fit.decode_input} is an affine function of the final state (residual {affine.residual:.1e})"
    proposal.points["decode"] = (decode.path, {"x": fit.decode_input}, None, why)
    if not affine.trivial:
        proposal.set("latent_scale", affine.scale, why)
        proposal.set("latent_shift", affine.shift, why)
    if fit.sample is not None:
        why = "is given the final state and returns what the decoder is given"
        proposal.points["sample"] = (fit.sample.path, {"x": fit.sample_input}, None, why)
    _ranges(proposal, decode)


def _ranges(proposal: Proposal, decode: Seen) -> None:
    driver = proposal.driver
    images = driver.images(driver.run()).double()
    made = decode.output.double() if decode.output is not None else images
    made = made.reshape(images.shape) if made.numel() == images.numel() else made
    low, high = float(images.min()), float(images.max())
    seen = f"pictures from {low:.3g} to {high:.3g}"
    if made.shape == images.shape and float(((made + 1) / 2 - images).abs().max()) < 1e-4:
        proposal.set("image_range", (0.0, 1.0), f"{seen}; they are (decoded + 1) / 2")
        proposal.set("decode_range", (-1.0, 1.0), "the same")
    elif low < -1e-3:
        proposal.set("image_range", (-1.0, 1.0), seen)
    else:
        proposal.set("image_range", (0.0, 1.0), seen)
        proposal.ambiguous.append(f"image_range: {seen}, which [-1, 1] would hold as well; taken: [0, 1]")
    if max(-low, high) > 1 + 1e-3:
        proposal.ambiguous.append(f"image_range: {seen}, beyond [-1, 1]: is the decoder's output clamped?")


def propose_text(proposal: Proposal, base: Watched, found: list[Evaluation], network: Velocity) -> None:
    """Propose the text point and what the flow starts at."""
    first, start = found[0].x, base.of(network.path)[0].start
    batch = proposal.driver.case.batch
    before = [c for c in base.calls if c.module and c.end < start and _rows(c.output) in (batch, 2 * batch)]
    outer = [c for c in before if not any(c.inside(o) for o in before)]
    starts = [c for c in outer if c.output is not None and _is_start(c.output, first)]
    text = next(iter(starts or outer), None)
    if text is None or text.output is None:
        proposal.set("initial_state", "noise", "no network was called before the loop")
        proposal.unknown.append("text: no network was called before the loop; rules about the text are skipped")
        return
    arguments = _text_arguments(text)
    proposal.points["text"] = (
        text.path,
        arguments,
        None,
        f"called before the loop, returns {tuple(text.output.shape)}",
    )
    if starts:
        proposal.set("initial_state", "text_latent", "the flow starts at what the text encoder returned")
        if text.output.dim() != 2:
            proposal.annotations["text.output"] = 'Float[Tensor, "N ..."]'
        return
    mean, std = float(first.mean()), float(first.std())
    proposal.set("initial_state", "noise", f"state at the start has mean {mean:.2f} and deviation {std:.2f}")
    if abs(std - 1) > 0.15:
        proposal.ambiguous.append(f"noise_scale: the start has deviation {std:.3g}; taken: 1")


def _rows(output: Any) -> int:
    return len(output) if isinstance(output, Tensor) and output.dim() > 1 and output.is_floating_point() else 0


def _is_start(output: Tensor, first: Tensor) -> bool:
    values = output[: len(first)].double()
    return values.numel() == first.numel() and torch.allclose(values.reshape(first.shape), first, atol=1e-4)


def _text_arguments(text: Seen) -> dict[str, str | int | None]:
    whole = [
        name
        for name, value in text.inputs.items()
        if isinstance(value, Tensor) and value.dim() == 2 and (not value.is_floating_point() or name.endswith("mask"))
    ]
    named = [*whole, None, None]
    return {"input_ids": named[0], "attention_mask": named[1]}
