"""The states of a run as pictures, made by the subject's own end of the loop: `sample` and `decode`."""

import itertools
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fmcheck.errors import NotInformative
from fmcheck.flow import to_decoder
from fmcheck.flow import unpack as unpack_tokens
from fmcheck.plan import Run, Wish
from fmcheck.plots.states import require_rows
from fmcheck.record.disturb import Disturbance, call_otherwise
from fmcheck.record.points import Arguments, find_output, stacked
from fmcheck.session import Session
from fmcheck.spec import FlowSpec
from fmcheck.subject import Point

__all__ = ["Decoded", "chosen_steps", "decoded_states", "unpack"]

_STEPS, _ROWS = 6, 4


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """Pictures of some states.

    Attributes:
        steps: in front of which step each state was seen; K is behind the last.
        edges: the declared flow times there.
        pictures: `[step][row]`, each float64 `[H, W, channels]` in [0, 1].
        outside: share of values outside of the declared range, by step.
        prompts: of the rows.
        remark: what else there is to know, such as the frame.
    """

    steps: tuple[int, ...]
    edges: tuple[float, ...]
    pictures: tuple[tuple[Tensor, ...], ...]
    outside: tuple[float, ...]
    prompts: tuple[str, ...]
    remark: str = ""


def chosen_steps(count: int, at_most: int = _STEPS) -> tuple[int, ...]:
    """Some of `count` positions, evenly spread, the first and the last among them."""
    if count <= at_most:
        return tuple(range(count))
    return tuple(round(k * (count - 1) / (at_most - 1)) for k in range(at_most))


def decoded_states(session: Session, run: Run) -> Decoded:
    """Decode states of a recorded run.

    The functions are called as the loop calls them, with whatever arguments it passes besides the state: in one more
    `generate()` of the same case, whose state is exchanged at its end. Model and random states are put back after it,
    as after every run.

    Raises:
        NotInformative: no `decode` is declared, or the states cannot be handed to it.
    """
    spec, points = run.subject.spec, run.subject.points
    if "decode" not in points:
        raise NotInformative("the subject declares no 'decode'")
    states = run.reading.states
    require_rows(states)
    if run.reading.final is None:
        raise NotInformative("the state that leaves the loop is not what enters the autoencoder (see FM601)")
    steps = chosen_steps(len(states))
    # Where the loop hands its state to `sample`, what that makes of it enters `decode`.
    sampled = run.reading.entered("sample") is not None
    exchange = _Exchange(spec, [states[k] for k in steps], in_state_units=not sampled)
    # Previews that the loop decodes on its way are left alone.
    behind = {(call.role, call.number) for call in run.reading.after_loop}
    changes: tuple[Disturbance, ...] = (_at("decode", points["decode"], exchange.decode, behind),)
    if sampled:
        changes = (_at("sample", points["sample"], exchange.sample, behind), *changes)
    again = session.run(Wish("decoded-states", run.case, disturbances=changes))
    if again.failure:
        raise NotInformative(f"while the states were decoded, {again.failure}")
    return _pictures(run, steps, exchange.collected(run.case.batch))


class _Exchange:
    """Exchanges the state for others at the calls behind the loop, and keeps what comes out for each of them."""

    def __init__(self, spec: FlowSpec, states: list[Tensor], *, in_state_units: bool) -> None:
        self._spec, self._in_state_units = spec, in_state_units
        self._states = states
        self._latents: list[list[Tensor]] = []
        self._decoded: list[list[Tensor]] = []
        self._rows = 0

    def sample(self, call: "_Call") -> Any:
        """Latents of all states; the loop gets that of its own state."""
        returned = call.with_x(call.x)
        if call.x.shape[1:] == self._states[0].shape[1:]:
            self._latents.append([call.tensor(self._part(state, call.x)) for state in self._states])
            self._rows += len(call.x)
        return returned

    def decode(self, call: "_Call") -> Any:
        """Pictures of all latents; the loop gets that of its own."""
        returned = call.with_x(call.x)
        if self._in_state_units:
            inputs = [_decoder_input(self._part(state, call.x), call.x, self._spec) for state in self._states]
            self._rows += len(call.x)
        else:
            inputs = [torch.cat([part[k] for part in self._latents]) for k in range(len(self._states))]
            done = sum(len(part[0]) for part in self._decoded)
            inputs = [latent[done : done + len(call.x)].to(call.x) for latent in inputs]
        if inputs[0].shape != call.x.shape:
            raise NotInformative(
                f"decode is given {tuple(call.x.shape)}, and the states lead to {tuple(inputs[0].shape)}"
            )
        self._decoded.append([call.tensor(x) for x in inputs])
        return returned

    def _part(self, state: Tensor, x: Tensor) -> Tensor:
        return state[self._rows : self._rows + len(x)].to(x)

    def collected(self, batch: int) -> list[Tensor]:
        """What was decoded, all rows of each state."""
        if not self._decoded:
            raise NotInformative("decode was not called behind the loop")
        parts = [torch.cat([part[k] for part in self._decoded]) for k in range(len(self._states))]
        if len(parts[0]) != batch:
            raise NotInformative(f"decode made {len(parts[0])} rows of {batch} prompts")
        return parts


@dataclass
class _Call:
    """One call of an observed function that can be made with other states."""

    original: Callable[..., Any]
    arguments: Arguments
    point: Point
    x: Tensor

    def with_x(self, x: Tensor) -> Any:
        selector = self.point.arguments["x"]
        self.arguments.set("x" if selector is None else selector, x)
        return self.original(*self.arguments.args, **self.arguments.kwargs)

    def tensor(self, x: Tensor) -> Tensor:
        """The tensor that the function makes of a state, copied."""
        found = find_output(self.with_x(x), self.point.output, len(x))
        if found is None:
            raise NotInformative(f"{self.point.path} returned no tensor")
        return found.detach().clone()


def _at(role: str, point: Point, do: Callable[[_Call], Any], calls: Collection[tuple[str, int]]) -> Disturbance:
    """`do` at those of the role's calls whose numbers are among `calls`."""
    numbers = itertools.count()

    def around(original: Callable[..., Any], arguments: Arguments) -> Any:
        if (role, next(numbers)) not in calls:
            return original(*arguments.args, **arguments.kwargs)
        x = stacked(arguments.get(point.arguments.get("x")))
        if not isinstance(x, Tensor) or x.dim() < 2:
            raise NotInformative(f"{role} is given no tensor with rows")
        return do(_Call(original, arguments, point, x))

    return call_otherwise("pictures of states", role, around)


def _decoder_input(state: Tensor, like: Tensor, spec: FlowSpec) -> Tensor:
    """A state in the layout and units in which the decoder is given its latent."""
    latent = state.double() if state.device.type != "mps" else state.float()
    if spec.token_patch is not None and like.dim() != latent.dim():
        latent = unpack(latent, like.shape, spec)
    return (to_decoder(latent, spec) if spec.unscale_before_decode else latent).to(like)


def unpack(tokens: Tensor, shape: torch.Size, spec: FlowSpec) -> Tensor:
    """The latent `[B, C, (frames) h w]` of tokens `[B, frames (h/p) (w/p), C p p]`: the inverse of `flow.pack`.

    Raises:
        NotInformative: tokens and latent do not hold the same numbers.
    """
    p = spec.token_patch or 1
    channels, (h, w) = shape[1], shape[-2:]
    frames = shape[2] if len(shape) == 5 else 1
    if (
        h % p
        or w % p
        or tokens.dim() != 3
        or tuple(tokens.shape[1:]) != (frames * (h // p) * (w // p), channels * p * p)
    ):
        raise NotInformative(f"tokens {tuple(tokens.shape)} do not fill a latent {tuple(shape)} in patches of {p}")
    return unpack_tokens(tokens, shape, p, spec.token_order)


def _pictures(run: Run, steps: tuple[int, ...], decoded: list[Tensor]) -> Decoded:
    spec = run.subject.spec
    low, high = spec.decode_range or spec.image_range
    shown, outside, remark = [], [], ""
    for made in decoded:
        images = made.detach().cpu().double()
        if images.dim() == 5:
            # Video decoders return [B, channels, frames, H, W], few of them [B, frames, channels, H, W].
            first_axis = images.shape[1] == spec.image_channels
            frames = images.shape[2 if first_axis else 1]
            remark = f"first of {frames} frames" if frames > 1 else ""
            images = images[:, :, 0] if first_axis else images[:, 0]
        if images.dim() != 4 or images.shape[1] not in (1, 3):
            raise NotInformative(f"decode makes {tuple(made.shape)}, which are no pictures of 1 or 3 channels")
        share = (images - low) / (high - low)
        outside.append(float(((share < 0) | (share > 1) | share.isnan()).double().mean()))
        share = share.nan_to_num(nan=0.0).clamp(0, 1)
        shown.append(tuple(row.permute(1, 2, 0).contiguous() for row in share[:_ROWS]))
    edges = run.reading.edges.tolist()
    last = len(edges) - 1
    return Decoded(
        steps=steps,
        edges=tuple(edges[min(k, last)] for k in steps),
        pictures=tuple(shown),
        outside=tuple(outside),
        prompts=tuple(run.case.prompts[:_ROWS]),
        remark=remark,
    )
