"""The reading of one training loss: both ends of the path, the state and the time that the network was given.

Every tensor is flattened to `[B, D]` (a row a training pair), float64, on the CPU.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from fmcheck.errors import NotInformative, missing
from fmcheck.flow import from_argument, pack, packable, to_state
from fmcheck.record.points import find_output
from fmcheck.record.trace import Call, Trace
from fmcheck.spec import FlowSpec, PerChannel

__all__ = ["DataEnd", "LineFit", "TrainingReading"]


@dataclass(frozen=True)
class DataEnd:
    """What may be the data end `x1` of the path: the output of a codec point, as it is or scaled by the spec."""

    name: str
    rows: Tensor


@dataclass(frozen=True)
class LineFit:
    """Where each row lies on the line `x0 + t (x1 - (1 - s_min) x0)`.

    Attributes:
        end: the data end that the line leads to.
        time: least-squares flow time of every row, `[B]`.
        direction: Euclidean norm of the line's direction, `[B]`.
        residual: Euclidean distance of the row's state from the line, `[B]`.
    """

    end: DataEnd
    time: Tensor
    direction: Tensor
    residual: Tensor


class TrainingReading:
    """One training loss through the spec.

    Raises:
        NotInformative: on access, when the recorded calls do not show what is asked for.
    """

    def __init__(self, trace: Trace, spec: FlowSpec) -> None:
        self.trace, self.spec, self.batch = trace, spec, trace.case.batch

    @cached_property
    def calls(self) -> list[Call]:
        """The velocity calls, which together have one row for each training pair."""
        calls = [call for call in self.trace.of("velocity") if call.error is None]
        if not calls:
            raise NotInformative("the loss never called the velocity network")
        rows = [_rows(call.inputs.get("x")) for call in calls]
        if sum(rows) != self.batch:
            raise NotInformative(f"the loss called the velocity network on {rows} rows for {self.batch} training pairs")
        return calls

    @cached_property
    def dtype(self) -> torch.dtype:
        """The coarsest dtype among the state and what it was made of."""
        found: list[torch.dtype] = [call.inputs["x"].dtype for call in self.calls]
        found += [output.dtype for role in ("text", "encode", "sample") for output in self._outputs(role)]
        return max(found, key=lambda dtype: torch.finfo(dtype).eps)

    def _outputs(self, role: str) -> list[Tensor]:
        outputs = [call.output for call in self.trace.of(role)]
        return [output for output in outputs if output is not None and output.dim() and output.is_floating_point()]

    @cached_property
    def shape(self) -> torch.Size:
        """Shape of the state without its rows."""
        shape: torch.Size = self.calls[0].inputs["x"].shape[1:]
        return shape

    @cached_property
    def state(self) -> Tensor:
        """`x_t` as the network got it."""
        return _flat([call.inputs["x"] for call in self.calls])

    @cached_property
    def output(self) -> Tensor:
        """What the network returned."""
        outputs = [call.output for call in self.calls if call.output is not None]
        found = _flat(outputs) if outputs else torch.empty(0)
        if found.shape != self.state.shape:
            raise NotInformative("in the loss, the network's output has another shape than its state (see FM105)")
        return found

    @cached_property
    def arguments(self) -> Tensor:
        """The time argument of every row as the network got it, `[B]`."""
        parts = [_per_row(call, call.inputs.get("time"), "time argument") for call in self.calls]
        return torch.cat(parts).double()

    @cached_property
    def argument_dtype(self) -> torch.dtype:
        return torch.as_tensor(self.calls[0].inputs["time"]).dtype

    @cached_property
    def told(self) -> Tensor:
        """The flow time that the network was told, `[B]`."""
        return from_argument(self.arguments, self.spec)

    @cached_property
    def null(self) -> Tensor | None:
        """True for the rows marked unconditional, `[B]`; None when no indicator was passed."""
        values = [call.inputs.get("null") for call in self.calls]
        if any(value is None for value in values):
            return None
        parts = [_per_row(call, value, "null indicator") for call, value in zip(self.calls, values, strict=True)]
        return torch.cat(parts).bool() == self.spec.null_means_unconditional

    @cached_property
    def conditional(self) -> Tensor:
        """True for the rows that are not marked unconditional, `[B]`: their ends belong together."""
        return torch.ones(self.batch, dtype=torch.bool) if self.null is None else ~self.null

    @cached_property
    def x0(self) -> Tensor:
        """The source end: the text latent, reshaped."""
        if self.spec.initial_state != "text_latent":
            raise NotInformative("the flow starts at noise, which no observation point shows in training")
        text = _flat(self._outputs("text"))
        if len(text) != self.batch:
            raise NotInformative(f"the loss made {len(text)} text latents for {self.batch} training pairs")
        if text.shape != self.state.shape:
            raise NotInformative(
                f"the text latent has {text.shape[1]} numbers and the state {self.state.shape[1]}, "
                "so the source end goes through a layer that no observation point shows"
            )
        return text

    @cached_property
    def unknown_source(self) -> str | None:
        """Why the source end cannot be seen; None when it can."""
        return missing(lambda: self.x0)

    @cached_property
    def unknown_gradient(self) -> str | None:
        """Why the gradient cannot be seen; None when it can."""
        return missing(lambda: self.gradient)

    @cached_property
    def ends(self) -> list[DataEnd]:
        """Candidates for the data end: codecs differ in whether encoding includes the latent scale."""
        found = []
        scale, shift = self.spec.latent_scale, self.spec.latent_shift
        trivial = (scale, shift) == (1.0, 0.0)
        for role in ("encode", "sample"):
            outputs = self._outputs(role)
            # Packed into tokens, or cut into patches, the numbers of a latent stand in an order that nobody declares.
            packed = [self._packed(output) for output in outputs]
            if any(output.shape[1:] != self.shape for output in packed):
                continue
            rows = _flat(packed)
            if rows.shape != self.state.shape:
                continue
            scaled = _flat([self._packed(to_state(output.double(), self.spec)) for output in outputs])
            # What sample returns is in the decoder's units, so it cannot be the flow's end as it is.
            if role == "encode" or trivial:
                found.append(DataEnd(f"the output of {role}", rows))
            if not trivial:
                found.append(DataEnd(f"(output of {role} - {_shown(shift)}) * {_shown(scale)}", scaled))
        if not found:
            raise NotInformative("no output of the encode point has the shape of the state (see FM906)")
        return found

    def _packed(self, latent: Tensor) -> Tensor:
        """A latent in the layout of the state; as it is where its axes are those of the state, or fit no tokens."""
        same = latent.shape[1:] == self.shape or not packable(latent, self.spec)
        return latent if same else pack(latent, self.spec)

    @cached_property
    def line(self) -> LineFit:
        """The line to the data end that most rows are nearest to."""
        fits = [self.fit(end) for end in self.ends]
        distances = torch.stack([fit.residual / fit.direction for fit in fits])
        nearest = distances.nan_to_num(torch.inf).argmin(dim=0).bincount(minlength=len(fits))
        return fits[int(nearest.argmax())]

    @cached_property
    def gradient(self) -> Tensor:
        """Gradient of the loss by the network's output."""
        live = [call.live for call in self.calls if call.live is not None and call.live.requires_grad]
        loss = find_output(self.trace.returned, None)
        if loss is None or not loss.requires_grad or len(live) < len(self.calls):
            raise NotInformative("the loss or the network's output carries no gradient")
        try:
            found = torch.autograd.grad(loss.sum(), live, retain_graph=True, allow_unused=True)
        except RuntimeError as error:
            # The loss function ran its own backward pass, which frees the graph.
            first_line = next(iter(str(error).splitlines()), "")
            raise NotInformative(f"the gradient of the loss cannot be taken: {first_line[:120]}") from error
        parts = [part for part in found if part is not None]
        if len(parts) < len(live):
            raise NotInformative("the loss does not depend on the network's output")
        return _flat(parts)

    def implied_x0(self, end: DataEnd) -> Tensor:
        """The source end that the state, the told time and a data end leave: `(x_t - t x1) / (1 - (1 - s_min) t)`."""
        t = self.told.unsqueeze(1)
        return (self.state - t * end.rows) / (1 - (1 - self.spec.sigma_min) * t)

    def fit(self, end: DataEnd) -> LineFit:
        """Least-squares place of every row on the line from its own `x0` to its row of `end`."""
        direction = end.rows - (1 - self.spec.sigma_min) * self.x0
        offset = self.state - self.x0
        time = (offset * direction).sum(1) / direction.square().sum(1)
        residual = offset - time.unsqueeze(1) * direction
        return LineFit(end, time, direction.norm(dim=1), residual.norm(dim=1))


def _shown(value: PerChannel) -> str:
    return "its channel's number" if isinstance(value, tuple) else f"{value:g}"


def _rows(value: object) -> int:
    return len(value) if isinstance(value, Tensor) and value.dim() > 1 and value.is_floating_point() else 0


def _flat(parts: list[Tensor]) -> Tensor:
    """All rows of all parts as float64 `[rows, numbers]`; `[0, 0]` when the parts do not fit together."""
    tensors = [part.detach().cpu().double().flatten(1) for part in parts if part.dim() > 1]
    widths = {tensor.shape[1] for tensor in tensors}
    return torch.cat(tensors) if len(widths) == 1 else torch.empty(0, 0, dtype=torch.float64)


def _per_row(call: Call, value: object, what: str) -> Tensor:
    rows = _rows(call.inputs.get("x"))
    if value is None:
        raise NotInformative(f"in the loss, {call.name} was passed no {what}")
    found = torch.as_tensor(value).detach().cpu().reshape(-1)
    if len(found) not in (1, rows):
        raise NotInformative(f"in the loss, {call.name} has {len(found)} values of its {what} for {rows} rows")
    return found.expand(rows)
