"""One rank's share of a run: the subject's own functions, recorded, and what rules about ranks ask of the recording."""

import time
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from fmcheck.drive import tokens_of
from fmcheck.errors import DeclarationError, NotInformative
from fmcheck.ranks.share import Share
from fmcheck.record.grouping import flow_times
from fmcheck.record.model_state import ModelState
from fmcheck.record.recorder import record
from fmcheck.record.trace import Call, Trace
from fmcheck.spec import FlowSpec
from fmcheck.subject import Request, Subject
from fmcheck.wish import Wish

__all__ = ["dealt", "share_of", "starts_of"]


def share_of(subject: Subject, model: Any, wish: Wish, rank: int) -> Share:
    """Run `generate_rank` or `generate` on one rank. Exceptions of the model are noted in the share.

    Args:
        model: sharded already where the wish says so.
        wish: its case is on the device of this rank.

    Raises:
        DeclarationError: the declaration is wrong: `generate_rank` returns something else, a tokenizer that raises.
    """
    driven = subject
    if wish.kind == "part":
        # Whatever the rank is asked to do is the run that is recorded.
        driven = subject.but(generate=lambda model, request: _part(subject, model, request, rank, wish.ranks))
    trace = record(
        model,
        driven,
        wish.case,
        inputs=tokens_of(subject, model, wish.case),
        disturb_rng=wish.disturb_rng,
        # Nothing is looked at or put back: the model may be spread over the ranks, and the process ends soon.
        baseline=ModelState(None),
    )
    if trace.error is not None:
        return failed_share(rank, trace.error)
    images, indices = dealt(trace.returned, subject.name) if wish.kind == "part" else (trace.result, ())
    calls = trace.of("velocity")
    return Share(
        rank=rank,
        images=_whole(images),
        indices=indices,
        starts=_whole(starts_of(trace, subject.spec)),
        velocity=_whole(calls[0].output) if calls else None,
        last_state=_whole(calls[-1].inputs.get("x")) if calls else None,
        shapes=tuple(_shapes(call) for call in trace.calls if call.role != "generate"),
        sources=tuple(sorted({draw.source for draw in trace.draws})),
        ended=time.time(),
    )


def failed_share(rank: int, error: BaseException) -> Share:
    """The share of a rank that ended in an exception."""
    exhausted = isinstance(error, MemoryError | torch.OutOfMemoryError)
    line = next(iter(str(error).splitlines()), "")
    return Share(rank=rank, error=f"{type(error).__name__}: {line[:200]}", exhausted=exhausted, ended=time.time())


def _part(subject: Subject, model: Any, request: Request, rank: int, ranks: int) -> Any:
    assert subject.generate_rank is not None
    return subject.generate_rank(model, request, rank, ranks)


def dealt(returned: Any, name: str) -> tuple[Tensor, tuple[int, ...]]:
    """`(images [n, ...], indices)` from what `generate_rank` returned; a rank without prompts may return empty lists.

    Raises:
        DeclarationError: it is no such pair.
    """
    try:
        images, indices = returned
        numbers = tuple(int(index) for index in indices)
        return _stacked(images), numbers
    except (TypeError, ValueError, RuntimeError) as error:
        found = type(returned).__name__
        raise DeclarationError(
            f"subject {name!r}: generate_rank must return a pair: images [n, channels, H, W] (or a list of them) and "
            f"the n indices of their prompts; found {found} ({error})"
        ) from error


def _stacked(images: Tensor | Iterable[Tensor] | None) -> Tensor:
    if isinstance(images, Tensor):
        return images.detach()
    parts = [part.detach() for part in images or ()]
    if not parts:
        return torch.empty(0)
    return torch.cat(parts) if parts[0].dim() == 4 else torch.stack(parts)


def starts_of(trace: Trace, spec: FlowSpec) -> Tensor | None:
    """The states of all network calls at the time of the first one: every flow that the rank began.

    None where a call has no state, no time, or another shape of state than the others.
    """
    calls = trace.of("velocity")
    try:
        times = [float(flow_times(call.inputs.get("time"), len(_state(call)), spec, call.name)[0]) for call in calls]
        first = [_state(call) for call, time_ in zip(calls, times, strict=True) if time_ == times[0]]
        return torch.cat(first) if first else None
    except (NotInformative, RuntimeError):
        return None


def _state(call: Call) -> Tensor:
    x = call.inputs.get("x")
    if not isinstance(x, Tensor) or not x.dim():
        raise NotInformative(f"{call.name} is given no state with rows")
    return x


def _shapes(call: Call) -> str:
    shapes = [str(list(value.shape)).replace(" ", "") for value in call.inputs.values() if isinstance(value, Tensor)]
    return call.role + "".join(shapes)


def _whole(tensor: Tensor | None) -> Tensor | None:
    """The tensor itself, put together where it is spread over the ranks."""
    if not isinstance(tensor, Tensor):
        return None
    gather = getattr(tensor, "full_tensor", None)
    return tensor.detach() if gather is None else gather().detach()  # type: ignore[no-any-return]
