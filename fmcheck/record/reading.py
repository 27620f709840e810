"""The reading: a trace seen through the spec, normalised to evaluations and moves of one flow.

One doubled guidance call, two separate calls, halves in either order, micro-batches, Heun's and midpoint's extra
stages and other time arguments all become the same evaluations; rules about the flow read only these.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache, partial

import torch
from torch import Tensor

from fmcheck.errors import NotInformative, missing
from fmcheck.flow import effective_coefficients, evaluation_times, pack, packable, time_edges, to_state
from fmcheck.flow.guidance import Coefficients
from fmcheck.record.grouping import Evaluation, Grouping
from fmcheck.record.memo import Memo
from fmcheck.record.trace import Call, Trace
from fmcheck.spec import FlowSpec
from fmcheck.tensors import all_finite, joined

__all__ = ["Evaluation", "Move", "Reading", "as_state"]


# Many runs of a session have the same number of steps.
_reference_edges = lru_cache(maxsize=256)(time_edges)


@dataclass
class Move(Memo):
    """One change of the state: `end - start` should be `fraction * dt * ((1 + w) cond - w uncond)`.

    `stage` counts the solver's stages within `step`; the move that `closes` it has fraction 1. `parts` are the
    evaluations that move the state, averaged where there are several. `last` is the move that ends the loop, `origin`
    the elementwise size of the state that the loop started at;
    `unscaled_from` is the dtype of the latent from which its end had to be recovered through scale and shift.
    """

    step: int
    stage: int
    start: Tensor
    end: Tensor
    parts: tuple[Evaluation, ...]
    fraction: float
    closes: bool
    last: bool
    spec: FlowSpec
    weight: float
    origin: Tensor
    unscaled_from: torch.dtype | None = None

    @cached_property
    def cond(self) -> Tensor:
        """Conditional velocity in float64."""
        return _mean([part.v_cond for part in self.parts])

    @cached_property
    def uncond(self) -> Tensor | None:
        """Unconditional velocity in float64; None when a part has none."""
        found = [part.v_uncond for part in self.parts if part.v_uncond is not None]
        return _mean(found) if len(found) == len(self.parts) else None

    @cached_property
    def alike(self) -> bool:
        """Whether both velocities are equal, so that only the step size can be read."""
        return self.uncond is not None and torch.equal(self.cond, self.uncond)

    @property
    def sizes(self) -> Tensor:
        """`|v_cond| + |v_uncond|`, elementwise; the second only where there is one."""
        return self.cond.abs() if self.uncond is None else self.cond.abs().add_(self.uncond.abs())

    @cached_property
    def delta(self) -> Tensor:
        """`end - start` in float64.

        Raises:
            NotInformative: the state or the velocity changes its shape on the way, so that nothing can be solved for.
        """
        shapes = {tuple(tensor.shape) for tensor in (self.start, self.end, self.cond)}
        if len(shapes) > 1:
            raise NotInformative(f"step {self.step} has states and velocities of shapes {shapes} (see FM104, FM105)")
        return self.end.double() - self.start.double()

    @cached_property
    def coefficients(self) -> Coefficients:
        """Least-squares coefficients of `delta` in the two velocities, divided by the fraction: `dt` and `w`.

        Equal velocities count as one, since then any weight is the same and the step size is still readable.
        """
        delta = self.delta if self.fraction == 1 else self.delta / self.fraction
        return effective_coefficients(delta, self.cond, None if self.alike else self.uncond)

    @cached_property
    def finite(self) -> bool:
        """Whether both ends and both velocities hold no NaN and no infinity."""
        if self.coefficients.determined:
            return True  # nothing that is not finite has coefficients
        tensors = (self.start, self.end, self.cond, self.uncond)
        return all(tensor is None or all_finite(tensor) for tensor in tensors)

    @cached_property
    def leftover(self) -> Tensor:
        """What the coefficients do not explain: `|delta - fraction (a cond + b uncond)|`, elementwise."""
        explained = self.coefficients.cond * self.cond
        if self.uncond is not None and not self.alike:
            explained = torch.add(explained, self.uncond, alpha=self.coefficients.uncond)
        return (self.delta - (explained if self.fraction == 1 else self.fraction * explained)).abs_()


def _mean(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.stack(parts).mean(0)


class Reading:
    """One `generate()` as steps of a flow.

    Raises:
        NotInformative: on access, when the calls cannot be read as evaluations of the declared flow.
    """

    def __init__(self, trace: Trace, spec: FlowSpec) -> None:
        self.trace, self.spec, self.case = trace, spec, trace.case
        self.batch = trace.case.batch
        self.weight = spec.guidance_weight(trace.case.guidance_scale)
        self.guided = self.weight != 0

    def weight_at(self, time: float) -> float:
        """The guidance weight of the case at a flow time."""
        return self.spec.guidance_weight_at(self.case.guidance_scale, time)

    @cached_property
    def edges(self) -> Tensor:
        """Reference time edges `[K + 1]` in float64."""
        return _reference_edges(self.case.num_steps, self.spec)

    @cached_property
    def steps_dt(self) -> Tensor:
        """Reference step sizes `[K]` in float64."""
        return self.edges.diff()

    @cached_property
    def evaluation_times(self) -> Tensor:
        """Reference flow times `[K, stages]` of the evaluations, in float64."""
        return evaluation_times(self.edges, self.spec)

    @cached_property
    def _grouping(self) -> Grouping:
        calls = [call for call in self.trace.of("velocity") if call.error is None]
        if not calls:
            raise NotInformative("the velocity network was never called")
        asked = self.case.num_steps * self.spec.stages
        known = self.spec, calls, self.batch
        # Not the method, which would tie the reading and the grouping to each other.
        weight_at = partial(self.spec.guidance_weight_at, self.case.guidance_scale)
        return Grouping(*known, guided=self.guided, evaluations=asked, weight_at=weight_at)

    @cached_property
    def evaluations(self) -> list[Evaluation]:
        return self._grouping.evaluations

    @cached_property
    def both_branches(self) -> bool:
        """Whether both branches are evaluated, as they may be at the neutral scale too."""
        return self._grouping.both

    @cached_property
    def doubled_calls(self) -> frozenset[int]:
        """Numbers of the velocity calls that hold both halves."""
        return self._grouping.doubled_calls

    @cached_property
    def steps(self) -> list[list[Evaluation]]:
        """The evaluations of each step; a Heun sampler may finish with a single one."""
        size = self.spec.stages
        return [self.evaluations[i : i + size] for i in range(0, len(self.evaluations), size)]

    @property
    def states(self) -> list[Tensor]:
        """The conditional state in front of every step and, where it is seen, behind the last, each `[B, ...]`."""
        before = [stages[0].x_cond for stages in self.steps]
        return before if self.final is None else [*before, self.final]

    @cached_property
    def initial(self) -> Tensor:
        """The state that the first evaluation was given, `[B, ...]`."""
        return self.evaluations[0].x_cond

    @cached_property
    def start(self) -> Tensor:
        """`initial` in float64 on the CPU, from which exact answers set out: not every device has float64."""
        return self.initial.detach().cpu().double()

    @cached_property
    def saves_last_corrector(self) -> bool:
        """Whether a Heun sampler ends with an Euler step, since nobody asks for the state after the last corrector."""
        return self.spec.solver == "heun" and len(self.evaluations) == 2 * self.case.num_steps - 1

    @cached_property
    def initial_size(self) -> Tensor:
        """`|initial|`, elementwise, in float64."""
        return self.initial.double().abs()

    @cached_property
    def final(self) -> Tensor | None:
        """The state that left the loop, read where it enters the autoencoder; None when that cannot be seen."""
        seen = self.terminal_input
        if seen is not None and seen.shape != self.initial.shape and self.spec.token_patch is not None:
            seen = _packed(seen, self.spec)
        if seen is None or seen.shape != self.initial.shape:
            return None
        return seen

    @cached_property
    def after_loop(self) -> list[Call]:
        """The calls after the last velocity call; those of every part where the prompts are made in parts."""
        done = self.trace.of("velocity")
        if not done:
            return []
        if self._grouping.in_parts:
            after = self.trace.calls[self.trace.calls.index(done[0]) + 1 :]
            return [call for call in after if call.role != "velocity"]
        return self.trace.calls[self.trace.calls.index(done[-1]) + 1 :]

    @cached_property
    def terminal_input(self) -> Tensor | None:
        """What entered the autoencoder after the loop, in the coordinates of the state, whatever its shape.

        Where the autoencoder is called on parts of the batch, its first calls are put together to B rows.
        """
        sampled, decoded = self.entered("sample"), self.entered("decode")
        if sampled is not None or decoded is None:
            return sampled
        return self._in_state_units(decoded)

    def entered(self, role: str) -> Tensor | None:
        """What was given to an observed function after the loop, the parts of a batch put together."""
        given = [call.inputs.get("x") for call in self.after_loop if call.role == role]
        return _first_rows([x for x in given if isinstance(x, Tensor) and x.dim()], self.batch)

    def _in_state_units(self, x: Tensor) -> Tensor:
        spec = self.spec
        if not spec.unscale_before_decode or (spec.latent_scale, spec.latent_shift) == (1.0, 0.0) or x.dim() < 2:
            return x
        if isinstance(spec.latent_scale, tuple) and x.shape[1] != len(spec.latent_scale):
            return x
        # Not cast back to the dtype of x: that would round once more than the loop did.
        return to_state(x.double(), spec)

    @cached_property
    def unscaled_from(self) -> torch.dtype | None:
        """Dtype of the latent that `final` is recovered from through scale and shift; None when it is seen itself."""
        decoded, spec = self.entered("decode"), self.spec
        trivial = (spec.latent_scale, spec.latent_shift) == (1.0, 0.0)
        if self.entered("sample") is not None or decoded is None or not spec.unscale_before_decode or trivial:
            return None
        return decoded.dtype

    def require_formula(self) -> None:
        """
        Raises:
            NotInformative: no formula says how the declared solver steps.
        """
        if not self.spec.has_formula:
            raise NotInformative(
                f"the solver is declared as {self.spec.solver!r}, whose steps no formula here describes"
            )

    @cached_property
    def moves(self) -> list[Move]:
        """Every change of the state between two places where it can be seen."""
        self.require_formula()
        moves: list[Move] = []
        for k, stages in enumerate(self.steps):
            following = self.steps[k + 1][0].x_cond if k + 1 < len(self.steps) else self.final
            moves += self._moves_of_step(k, stages, following)
        return moves

    @cached_property
    def unreadable(self) -> str | None:
        """Why the calls cannot be read as evaluations of the declared flow; None when they can."""
        return missing(lambda: self.evaluations)

    @cached_property
    def full_moves(self) -> list[Move]:
        """The moves that complete a step, one a step."""
        return [move for move in self.moves if move.closes]

    @cached_property
    def effective_dt(self) -> list[float]:
        """The step size that each full step really took (NaN where the velocity is zero)."""
        return [move.coefficients.dt for move in self.full_moves]

    @cached_property
    def argument_dtype(self) -> torch.dtype:
        """Dtype of the time argument; float32 for numbers, and for integers where the subject does not declare them."""
        for call in self.trace.of("velocity"):
            time = call.inputs.get("time")
            # Whole numbers only where the subject declares them; otherwise they are a fault, and no excuse for one.
            if isinstance(time, Tensor) and (time.is_floating_point() or not call.mismatches):
                return time.dtype
        return torch.float32

    def _moves_of_step(self, k: int, stages: list[Evaluation], following: Tensor | None) -> list[Move]:
        first, last = stages[0], k + 1 == len(self.steps)

        def move(stage: int, end: Tensor, parts: tuple[Evaluation, ...], fraction: float, closing: bool) -> Move:
            ends = closing and last
            source = self.unscaled_from if ends else None
            weight = self.weight_at(parts[-1].time)
            known = (self.spec, weight, self.initial_size, source)
            return Move(k, stage, first.x_cond, end, parts, fraction, closing, ends, *known)

        if len(stages) == 1:
            return [] if following is None else [move(0, following, (first,), 1.0, True)]
        second = stages[1]
        moves = [move(0, second.x_cond, (first,), 0.5 if self.spec.solver == "midpoint" else 1.0, False)]
        if following is not None:
            parts = (first, second) if self.spec.solver == "heun" else (second,)
            moves.append(move(1, following, parts, 1.0, True))
        return moves


def as_state(latent: Tensor, spec: FlowSpec) -> Tensor | None:
    """A decoder's latent as the state in float64: its units and layout; None where it is no latent of the spec."""
    if latent.dim() < 2 or (isinstance(spec.latent_scale, tuple) and latent.shape[1] != len(spec.latent_scale)):
        return None
    return _packed(to_state(latent.double(), spec), spec)


def _packed(latent: Tensor, spec: FlowSpec) -> Tensor | None:
    return pack(latent, spec) if packable(latent, spec) else None


def _first_rows(parts: list[Tensor], batch: int) -> Tensor | None:
    """The first parts that together have at least `batch` rows; None when there are none."""
    taken: list[Tensor] = []
    for part in parts:
        if taken and (sum(map(len, taken)) >= batch or part.shape[1:] != taken[0].shape[1:]):
            break
        taken.append(part)
    return joined(taken) if taken else None
