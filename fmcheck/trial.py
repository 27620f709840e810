"""One scenario run and judged: on a new model object, or on one that earlier scenarios have used."""

import gc
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from fmcheck.errors import DeclarationError, InternalError
from fmcheck.outcome import Finding, Outcome
from fmcheck.record.watch import global_random_state
from fmcheck.rules import Rule, Severity, get_rule, select_rules
from fmcheck.scenario import Scenario
from fmcheck.session import Models, Session
from fmcheck.subject import Subject
from fmcheck.wish import Wish

__all__ = ["CRASH", "HANG", "MEMORY", "Bench", "Verdict", "failure", "wishes_of"]

# What ends a trial before a rule can judge it. They stand in the place of a rule's code.
CRASH, HANG, MEMORY = "CRASH", "HANG", "MEMORY"
_NAMES = {CRASH: "process-died", HANG: "time-limit", MEMORY: "out-of-memory"}
_HISTORY = "FM717"
_BROKE = "fmcheck broke, please report it: "
# Models that are thrown away between two collections of garbage.
_SWEEP = 8
# Of so many scenarios on used objects, one has all its weights compared bit for bit.
_THOROUGH = 8


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of a scenario.

    Attributes:
        findings: of every rule, and of those that end a trial; notes are left out.
        judged: codes of the rules that compared something.
        refused: why the subject's own tokenizer or build took no such scenario; empty when it did.
        broken: rules that broke, which is fmcheck's own defect.
        runs: names of the runs that were made.
        generate_seconds, seconds: in the model, and in all.
    """

    findings: tuple[Finding, ...] = ()
    judged: tuple[str, ...] = ()
    refused: str = ""
    broken: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    generate_seconds: float = 0.0
    seconds: float = 0.0

    def failing(self, *, strict: bool = False) -> list[str]:
        """Codes with an error (or, if strict, a warning), each once, in the order of the rules; also MEMORY."""
        counts = [f for f in self.findings if strict or f.severity == "error" or f.code == MEMORY]
        return list(dict.fromkeys(finding.code for finding in counts))

    def of(self, code: str) -> list[Finding]:
        """The findings of one code."""
        return [finding for finding in self.findings if finding.code == code]


def failure(code: str, message: str, scenario: Scenario) -> Verdict:
    """The verdict on a scenario that ended before any rule could judge: a crash, a hang, no memory left."""
    severity: Severity = "warning" if code == MEMORY else "error"
    case = scenario.last.case
    finding = Finding(code=code, name=_NAMES[code], severity=severity, message=message, case=case)
    return Verdict(findings=(finding,))


@dataclass
class Bench:
    """Runs scenarios of one subject and judges them by the selected rules.

    Attributes:
        select, ignore: codes or prefixes, as for `fmcheck run`.
        models: the model objects that scenarios share when they ask for no new ones.
    """

    subject: Subject
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    models: Models = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rules = select_rules(self.select, self.ignore)
        self._thrown_away = self._shared = 0

    def session(self, scenario: Scenario, *, fresh: bool = True) -> Session:
        """A session whose native case is that of the scenario's last call.

        Raises:
            DeclarationError: a case that the subject cannot have: an undeclared dtype or size, an absent device.
        """
        self._check_sizes(scenario)
        subject = self.subject.but(case=scenario.last.case)
        if fresh:
            return Session(subject)
        self._shared += 1
        return Session(subject, models=self.models, thorough=self._shared % _THOROUGH == 0)

    def _check_sizes(self, scenario: Scenario) -> None:
        sizes = self.subject.sizes
        for call in scenario.calls:
            size = call.case.height, call.case.width
            if sizes is not None and size not in [tuple(legal) for legal in sizes]:
                raise DeclarationError(f"size {size[0]}x{size[1]}: subject {self.subject.name!r} runs only at {sizes}")

    def judge(self, scenario: Scenario, *, fresh: bool = True) -> Verdict:
        """Run the scenario and judge it.

        Args:
            fresh: on new model objects, so that nothing but the scenario can matter. Otherwise on objects that earlier
                scenarios have used, which saves building them; a last call is then held against another used object,
                with another history, and most weights are only known not to have been written to.

        Raises:
            DeclarationError: the subject's declaration is wrong (not: its tokenizer refuses these prompts).
        """
        session = self.session(scenario, fresh=fresh)
        try:
            return self.judged(scenario, session)
        finally:
            session.forget()
            self._sweep(used=session.models is not self.models)

    def _sweep(self, *, used: bool) -> None:
        """Models are often parts of cycles, and the collector counts objects and not their megabytes."""
        self._thrown_away += used
        if self._thrown_away >= _SWEEP:
            self._thrown_away = 0
            gc.collect()

    def judged(self, scenario: Scenario, session: Session) -> Verdict:
        """The verdict on a scenario in a session made for it.

        The global random generators are seeded for it, so that it comes out the same again even if they are drawn from.
        """
        with global_random_state(scenario.last.case.device, disturb=0):
            return self._judged(scenario, session)

    def _judged(self, scenario: Scenario, session: Session) -> Verdict:
        started = time.perf_counter()
        wishes = wishes_of(scenario)
        refused = _refusal(session, scenario)
        outcomes = [] if refused else list(self._outcomes(session, scenario, wishes))
        exhausted = [o.reason for o in outcomes if o.status == "out of resources"]
        findings = [f for o in outcomes for f in o.findings if f.severity != "note"]
        if exhausted:
            findings += failure(MEMORY, f"memory ran out: {exhausted[0]}", scenario).findings
        return Verdict(
            findings=tuple(findings),
            judged=tuple(dict.fromkeys(o.rule.code for o in outcomes if o.checks)),
            refused=refused,
            broken=tuple(o.reason.removeprefix(_BROKE) for o in outcomes if o.reason.startswith(_BROKE)),
            runs=tuple(session.wanted),
            generate_seconds=session.generate_seconds,
            seconds=time.perf_counter() - started,
        )

    def _outcomes(self, session: Session, scenario: Scenario, wishes: list[Wish]) -> Iterator[Outcome]:
        for wish in wishes:
            _make(session, wish)
        codes = {rule.code for rule in self.rules}
        for rule in self.rules:
            if rule.wishes is None:
                yield _judged_if_whole(session, rule, wishes)
        if len(wishes) > 1 and _HISTORY in codes:
            yield _judged_if_whole(session, get_rule(_HISTORY), _held_against_new(wishes[-1]))
        for code in scenario.asks:
            rule = get_rule(code)
            if rule.code in codes:
                yield _judged_if_whole(session, rule, None)


def wishes_of(scenario: Scenario) -> list[Wish]:
    """The runs of a scenario's calls; equal calls are told apart by their turn."""
    wishes: list[Wish] = []
    count = len(scenario.calls)
    for number, call in enumerate(scenario.calls):
        name = "fuzz" if count == 1 else f"call {number + 1} of {count}"
        turn = scenario.calls[:number].count(call)
        wishes.append(Wish(name, call.case, call.kind, tokens=call.tokens, disturb_rng=call.global_seed, turn=turn))
    return wishes


def _held_against_new(wish: Wish) -> Mapping[str, Wish]:
    twin = replace(wish, name="the same call on another object", turn=0, fresh=True)
    return {wish.name: wish, f"fresh {wish.name}": twin}


def _judged_if_whole(session: Session, rule: Rule, over: Sequence[Wish] | Mapping[str, Wish] | None) -> Outcome:
    """The outcome of a rule. One that breaks is not to blame on the others, whose verdicts are wanted."""
    try:
        return session.judge(rule, over=over)
    except InternalError as error:
        return Outcome(rule=rule, status="not informative", reason=f"{_BROKE}{error}")


def _make(session: Session, wish: Wish) -> None:
    """Make the run, so that all are made in the order of the calls; without it each rule says why there is none."""
    try:
        session.run(wish)
    except (DeclarationError, InternalError):
        raise
    except Exception:
        pass


def _refusal(session: Session, scenario: Scenario) -> str:
    """Why the subject's tokenizer does not take the prompts of the scenario; empty when it does."""
    tokenize = session.subject.tokenize
    if tokenize is None:
        return ""
    for call in scenario.calls:
        model, _ = session.model(call.case)
        try:
            tokenize(model, list(call.case.prompts))
        except Exception as error:
            return f"tokenize refused the prompts: {type(error).__name__}: {error}"
    return ""
