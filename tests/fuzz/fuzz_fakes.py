"""Subjects that are never built, and executors whose verdict is a function of the scenario alone."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis.database import ExampleDatabase
from hypothesis.strategies import SearchStrategy

from fmcheck.case import Case
from fmcheck.fuzz import Campaign, Executor, FuzzReport, Limits
from fmcheck.outcome import Finding
from fmcheck.rules import Severity
from fmcheck.scenario import Call, Scenario
from fmcheck.spec import FlowSpec
from fmcheck.strategies import Domain, scenarios
from fmcheck.subject import Subject
from fmcheck.trial import Verdict

Condition = Callable[[Scenario], bool]


def subject(name: str = "never built", **fields: Any) -> Subject:
    """A declaration to draw cases for."""
    return Subject(name=name, build=lambda case: None, generate=lambda model, request: None, velocity="net", **fields)


def able(name: str, **fields: Any) -> Subject:
    """One that declares all that a call can be about."""
    return subject(
        name,
        tokenize=lambda model, prompts: {},
        pad=lambda model, inputs, extra: inputs,
        masked=lambda model, inputs: inputs,
        loss=lambda model, request: 0,
        **fields,
    )


# Two channels and cells of 8 pixels; natively 2 x 4 x 6, three steps.
SMALL = subject(
    "small",
    spec=FlowSpec(latent_channels=2, downsampling=8),
    case=Case(prompts=("a red circle", "a square"), height=32, width=48, num_steps=3),
)


@dataclass(frozen=True)
class Axes:
    """The numbers of a call that conditions are about."""

    B: int
    h: int
    w: int
    C: int
    K: int
    weight: float
    seed: int


def axes(call: Call, of: Subject = SMALL) -> Axes:
    """The numbers of a call of a subject, in cells of the latent."""
    case = call.case
    channels, h, w = of.spec.latent_size(case.height, case.width)
    weight = case.guidance_scale - of.spec.neutral_scale
    return Axes(case.batch, h, w, channels, case.num_steps, weight, case.seed)


def last(condition: Callable[[Axes], bool], of: Subject = SMALL) -> Condition:
    """Whether the last call of a scenario has a property."""
    return lambda scenario: condition(axes(scenario.last, of))


def broken(code: str, severity: Severity = "error") -> Finding:
    """A finding of a rule that nobody wrote."""
    return Finding(code=code, name="made-up", severity=severity, message=f"{code} does not hold")


@dataclass
class Fake:
    """An executor without a model.

    Attributes:
        rules: the condition under which each rule finds something.
        asked: all that was judged, and whether on a new object.
        hook: called with every scenario first.
    """

    rules: dict[str, Condition] = field(default_factory=dict)
    severities: dict[str, Severity] = field(default_factory=dict)
    refuses: Condition = lambda scenario: False
    hook: Callable[[Scenario], None] = lambda scenario: None
    asked: list[tuple[Scenario, bool]] = field(default_factory=list)
    renewed: int = 0
    closed: bool = False

    def judge(self, scenario: Scenario, *, fresh: bool) -> Verdict:
        self.asked.append((scenario, fresh))
        self.hook(scenario)
        if self.refuses(scenario):
            return Verdict(refused="tokenize refused the prompts: ValueError: too long by 3")
        codes = [code for code, condition in self.rules.items() if condition(scenario)]
        findings = tuple(broken(code, self.severities.get(code, "error")) for code in codes)
        return Verdict(findings=findings, judged=tuple(self.rules))

    def renew(self) -> None:
        self.renewed += 1

    def close(self) -> None:
        self.closed = True


def campaign(
    executor: Executor | dict[str, Condition],
    *,
    of: Subject = SMALL,
    strategy: SearchStrategy[Scenario] | None = None,
    domain: Domain | None = None,
    database: ExampleDatabase | None = None,
    codes: tuple[str, ...] = (),
    **limits: Any,
) -> Campaign:
    """A campaign of a fake executor, or of one with these rules; shrinking is not stopped by a clock."""
    return Campaign(
        subject=of,
        executor=Fake(executor) if isinstance(executor, dict) else executor,
        strategy=scenarios(of, domain) if strategy is None else strategy,
        limits=Limits(**{"examples": 27, "shrink_seconds": 600.0, **limits}),
        database=database,
        codes=codes,
    )


def drawn(of: Subject, examples: int, *, asks: tuple[str, ...] = (), seed: int = 0) -> list[Scenario]:
    """The scenarios that a campaign runs."""
    executor = Fake()
    report: FuzzReport = campaign(
        executor, of=of, strategy=scenarios(of, asks=asks), examples=examples, seed=seed
    ).run()
    assert report.finds == ()
    return [scenario for scenario, _ in executor.asked]
