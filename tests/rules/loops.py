"""Correct sampling loops, written out by hand over a velocity in closed form, and one way to run and judge them.

Nothing here uses fmcheck's own mathematics: grids, solvers, guidance and scales are spelled out in plain torch, so
that a bound which only holds for the reference implementation shows as a false alarm.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from fmcheck.case import Case
from fmcheck.errors import NotInformative
from fmcheck.outcome import Outcome
from fmcheck.plan import Run, Wish
from fmcheck.record.recorder import record
from fmcheck.rules import Check, all_rules, get_rule
from fmcheck.run import Session
from fmcheck.spec import FlowSpec
from fmcheck.subject import Point, Request, Subject

CHANNELS, FACTOR = 3, 4
SPEC = FlowSpec(latent_channels=CHANNELS, downsampling=FACTOR, latent_scale=0.5, latent_shift=0.25)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
# Trace rules of the families that judge the flow; FM7's are about the interface.
FLOW_RULES = tuple(r for r in all_rules() if r.family in ("FM2", "FM3", "FM4", "FM5", "FM6") and r.wishes is None)


@dataclass(frozen=True)
class Style:
    """How a correct loop is written; none of it may matter to a rule.

    Attributes:
        formula: `sum` is `(1 + w) c - w u`, `cond` is `c + w (c - u)`, `uncond` is `u + s (c - u)`.
        combine: dtype in which the velocities are combined; None keeps the network's.
        state: dtype of the state.
        cast: whether the state is cast to the network's dtype before the call (else inside the network).
        parts: prompts of one network call; 0 is all of them.
        both: whether the unconditional branch is evaluated at the neutral scale too.
        scalar_time: one time for all rows in place of one a row.
        grid: dtype in which the grid is computed.
        reciprocal: whether the latent is multiplied by `1 / scale` in place of a division.
        x_size, v_size: magnitudes of the state and of the velocity.
        null: whether the network is told by an indicator; else by an argument that is not observed.
        fused: whether Heun's average is written as two half steps.
        decode_parts: rows of one decode call; 0 is all of them.
        sample: whether there is a sample point.
    """

    formula: str = "sum"
    combine: str | None = "float32"
    state: str = "float32"
    cast: bool = False
    parts: int = 0
    both: bool = True
    scalar_time: bool = False
    grid: str = "float32"
    reciprocal: bool = False
    x_size: float = 1.0
    v_size: float = 1.0
    null: bool = True
    fused: bool = False
    decode_parts: int = 0
    sample: bool = True


class Pipeline:
    """A text-to-image flow of plain functions. Subclasses replace one method, which is then their defect."""

    def __init__(self, spec: FlowSpec = SPEC, style: Style = Style(), dtype: str = "float32") -> None:
        self.spec, self.style, self.dtype = spec, style, DTYPES[dtype]

    # The parts that are observed.

    def text(self, prompts: list[str], generator: torch.Generator, size: tuple[int, int, int]) -> Tensor:
        z = torch.randn(len(prompts), math.prod(size), generator=generator, dtype=torch.float64)
        phase = torch.tensor([float(sum(map(ord, prompt)) % 7) for prompt in prompts], dtype=torch.float64)
        return (self.style.x_size * (z + phase[:, None] / 7)).to(DTYPES[self.style.state])

    def network(self, x: Tensor, time: Tensor, null: Tensor | None = None, hidden: Tensor | None = None) -> Tensor:
        """The prediction that the spec declares, rounded to the network's dtype."""
        spec = self.spec
        offset, slope = time_law(spec)
        t = ((time.double() - offset) / slope).reshape(-1, 1, 1, 1)
        y = x.to(self.dtype).double()
        flag = (hidden if null is None else null == spec.null_means_unconditional).double().reshape(-1, 1, 1, 1)
        v = self.field(y, t, flag)
        r = 1 - spec.sigma_min
        kinds = {"velocity": v, "reverse_velocity": -v, "x1": r * y + (1 - r * t) * v, "x0": y - t * v}
        return kinds[spec.prediction].to(self.dtype)

    def field(self, x: Tensor, t: Tensor, null: Tensor) -> Tensor:
        """Nonlinear in the state and the time, and in float64."""
        y = x / self.style.x_size
        v = torch.sin(1.3 * y + 2 * t * t) - 0.3 * y + 0.2 * y.flip(1)
        return self.style.v_size * (v + null * (0.5 * torch.cos(y.flip(-1)) - 0.3 * t))

    def sample(self, x: Tensor) -> Tensor:
        scale, shift = self.spec.latent_scale, self.spec.latent_shift
        return x * (1 / scale) + shift if self.style.reciprocal else x / scale + shift

    def decode(self, x: Tensor) -> Tensor:
        small = torch.tanh(x / (1 + self.style.x_size))
        return small.repeat_interleave(FACTOR, 2).repeat_interleave(FACTOR, 3)

    # The loop.

    def edges(self, steps: int) -> Tensor:
        spec, dtype = self.spec, DTYPES[self.style.grid]
        q = torch.linspace(spec.grid_clamp, 1 - spec.grid_clamp, steps + 1, dtype=dtype)
        if spec.grid == "logit_normal":
            return torch.sigmoid(torch.distributions.Normal(spec.grid_mean, spec.grid_std).icdf(q))
        if spec.grid == "uniform":
            return q
        sigma = 1 - q
        return 1 - spec.grid_shift * sigma / (1 + (spec.grid_shift - 1) * sigma)

    def initial(self, z: Tensor, size: tuple[int, int, int]) -> Tensor:
        return z.reshape(len(z), *size)

    def told(self, t: Tensor, rows: int) -> Tensor:
        offset, slope = time_law(self.spec)
        value = (offset + slope * t).float()
        return value if self.style.scalar_time else value.reshape(1).repeat(rows)

    def ask(self, x: Tensor, t: Tensor, null: Tensor) -> Tensor:
        """One network call."""
        x = x.to(self.dtype) if self.style.cast else x
        told = self.told(t, len(x))
        if self.style.null:
            return self.network(x, told, null if self.spec.null_means_unconditional else ~null)
        return self.network(x, told, hidden=null)

    def branches(self, x: Tensor, t: Tensor, guided: bool) -> tuple[Tensor, Tensor | None]:
        parts = x.split(self.style.parts or len(x))
        made = [self.branches_of(part, t, guided) for part in parts]
        cond = torch.cat([c for c, _ in made])
        return cond, torch.cat([u for _, u in made if u is not None]) if guided else None

    def branches_of(self, x: Tensor, t: Tensor, guided: bool) -> tuple[Tensor, Tensor | None]:
        off, on = torch.zeros(len(x), dtype=torch.bool), torch.ones(len(x), dtype=torch.bool)
        layout = self.spec.guidance_layout
        if not guided:
            return self.ask(x, t, off), None
        if layout == "separate":
            return self.ask(x, t, off), self.ask(x, t, on)
        if layout == "separate_uncond_first":
            uncond = self.ask(x, t, on)
            return self.ask(x, t, off), uncond
        first = layout == "cond_first"
        halves = self.ask(torch.cat([x, x]), t, torch.cat([off, on] if first else [on, off])).chunk(2)
        return halves if first else halves[::-1]

    def combine(self, cond: Tensor, uncond: Tensor | None, scale: float) -> Tensor:
        if self.style.combine:
            cond = cond.to(DTYPES[self.style.combine])
            uncond = None if uncond is None else uncond.to(DTYPES[self.style.combine])
        if uncond is None:
            return cond
        w = scale if self.spec.guidance_formula == "cond_plus" else scale - 1
        if self.style.formula == "sum":
            return (1 + w) * cond - w * uncond
        return cond + w * (cond - uncond) if self.style.formula == "cond" else uncond + (1 + w) * (cond - uncond)

    def velocity(self, x: Tensor, t: Tensor, scale: float) -> Tensor:
        """`dx/dt`, guided, in the dtype that the style combines in."""
        neutral = 0.0 if self.spec.guidance_formula == "cond_plus" else 1.0
        cond, uncond = self.branches(x, t, scale != neutral or self.style.both)
        p = self.combine(cond, uncond, scale)
        if self.spec.prediction == "velocity":
            return p
        r, t = 1 - self.spec.sigma_min, t.to(p.dtype)
        if self.spec.prediction == "reverse_velocity":
            return -p
        return (p - r * x) / (1 - r * t) if self.spec.prediction == "x1" else (x - p) / t

    def step(self, x: Tensor, start: Tensor, end: Tensor, scale: float, last: bool) -> Tensor:
        dt, spec = end - start, self.spec
        if spec.solver == "euler":
            return x + dt * self.velocity(x, (start + end) / 2 if spec.evaluation_point == "midpoint" else start, scale)
        k1 = self.velocity(x, start, scale)
        if spec.solver == "midpoint":
            return x + dt * self.velocity(x + dt / 2 * k1, (start + end) / 2, scale)
        if last and spec.prediction == "x1":
            return x + dt * k1
        k2 = self.velocity(x + dt * k1, end, scale)
        return x + dt / 2 * k1 + dt / 2 * k2 if self.style.fused else x + dt * ((k1 + k2) / 2)

    def integrate(self, x: Tensor, steps: int, scale: float) -> Tensor:
        edges = self.edges(steps)
        for k in range(steps):
            x = self.step(x, edges[k], edges[k + 1], scale, k + 1 == steps).to(DTYPES[self.style.state])
        return x

    def finish(self, x: Tensor) -> Tensor:
        latent = self.sample(x)
        return torch.cat([self.decode(part) for part in latent.split(self.style.decode_parts or len(x))])

    @torch.no_grad()
    def generate(self, request: Request) -> Tensor:
        size = (CHANNELS, request.height // FACTOR, request.width // FACTOR)
        z = self.text(request.prompts, request.generator, size)
        x = self.integrate(self.initial(z, size), request.num_steps, request.guidance_scale)
        return self.finish(x).float()


def time_law(spec: FlowSpec) -> tuple[float, float]:
    """What the network is told: `offset + slope * t`."""
    laws = {"log_snr": (4.0, -8.0), "t": (0.0, 1.0), "sigma": (1.0, -1.0), "timestep": (1000.0, -1000.0)}
    offset, slope = laws[spec.time_argument]
    return (
        offset if spec.time_offset is None else spec.time_offset,
        slope if spec.time_slope is None else spec.time_slope,
    )


def loop_subject(pipeline: Callable[..., Pipeline] = Pipeline, *, style: Style = Style(), **fields: Any) -> Subject:
    """The subject of a pipeline class."""
    spec = fields.pop("spec", SPEC)
    null = {} if style.null else {"null": None}
    given: dict[str, Any] = {
        "name": "loops",
        "build": lambda case: pipeline(spec, style, case.dtype),
        "generate": lambda model, request: model.generate(request),
        "velocity": Point("network", arguments=null),
        "text": "text",
        "sample": "sample" if style.sample else None,
        "decode": "decode",
        "spec": spec,
        "case": Case(height=16, width=16),
    }
    return Subject(**{**given, **fields})


def run_of(subject: Subject, **changes: Any) -> Run:
    """One recorded run of the subject's case with some fields changed."""
    case = subject.case.but(**changes)
    return Run(Wish("run", case), subject, record(subject.build(case), subject, case))


@dataclass
class Verdict:
    """What one rule said about one run."""

    checks: list[Check] = field(default_factory=list)
    silent: str = ""

    @property
    def failures(self) -> list[Check]:
        return [check for check in self.checks if not check.holds and check.severity == "error"]

    @property
    def ratio(self) -> float:
        return max((check.ratio for check in self.checks if check.ratio is not None), default=0.0)


def verdicts(run: Run, rules: Iterable[Any] = FLOW_RULES) -> Iterator[tuple[str, Verdict]]:
    """The verdict of every trace rule about the flow; a rule whose needs the subject lacks is left out."""
    for known in rules:
        if any(need.split(".")[0] not in run.subject.points for need in known.needs):
            continue
        if "velocity.null" in known.needs and run.subject.points["velocity"].arguments.get("null") is None:
            continue
        verdict = Verdict()
        try:
            for check in known.function(run):
                verdict.checks.append(check)
        except NotInformative as reason:
            verdict.silent = str(reason)
        yield known.code, verdict


def but(**changes: Any) -> FlowSpec:
    """The loops' spec with some conventions changed."""
    return replace(SPEC, **changes)


def judge(code: str, pipeline: Callable[..., Pipeline] = Pipeline, **fields: Any) -> Outcome:
    """The outcome of one rule on a pipeline class."""
    return Session(loop_subject(pipeline, **fields)).judge(get_rule(code))


# They judge the loop as a whole, and so see whatever another rule sees in a step; test_fm5_exact.py is about them.
WHOLE_LOOP = ("FM208", "FM503", "FM504", "FM505", "FM506")


def failing(pipeline: Callable[..., Pipeline], **fields: Any) -> dict[str, Outcome]:
    """The rules about the steps of a flow that fail on a pipeline class, by code."""
    families = ("FM2", "FM3", "FM4", "FM5", "FM6")
    codes = [r.code for r in all_rules() if r.family in families and r.code not in WHOLE_LOOP]
    return {code: o for code, o in outcomes(codes, pipeline, **fields).items() if o.status == "failed"}


def outcomes(codes: Iterable[str], pipeline: Callable[..., Pipeline] = Pipeline, **fields: Any) -> dict[str, Outcome]:
    """The outcomes of several rules, which share their runs."""
    session = Session(loop_subject(pipeline, **fields))
    return {code: session.judge(get_rule(code)) for code in codes}


def caught(outcome: Outcome, *parts: str) -> None:
    """The rule failed, and each part is in one of its findings."""
    assert outcome.status == "failed", f"{outcome.status}: {outcome.reason}"
    told = " | ".join(map(str, outcome.findings))
    for part in parts:
        assert part in told, told


def silent(outcome: Outcome, reason: str) -> None:
    """The rule could not judge, and says why."""
    assert outcome.status == "not informative", [str(f) for f in outcome.findings]
    assert reason in outcome.reason


def clean(outcome: Outcome) -> None:
    """The rule looked, and found nothing."""
    assert outcome.status == "passed", f"{outcome.reason} {[str(f) for f in outcome.findings]}"
    assert outcome.checks > 0
    assert (outcome.ratio or 0) <= 1
