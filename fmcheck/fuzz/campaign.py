"""A campaign: search the scenarios of a subject, and shrink what is found, for every rule by itself.

Hypothesis draws, replays and shrinks. Every rule has a condition and a database key of its
own, so that each one's failure is a bug by itself: the example of a scenario that breaks rules not yet known to be
broken is saved for each of them, each is shrunk, and the search goes on for the others.
"""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from random import Random

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis.database import ExampleDatabase, InMemoryExampleDatabase
from hypothesis.strategies import SearchStrategy

from fmcheck.errors import DeclarationError
from fmcheck.fuzz.coverage import Coverage
from fmcheck.fuzz.executor import Executor, Local
from fmcheck.fuzz.judging import Judging, OutOfTime
from fmcheck.fuzz.polish import polished
from fmcheck.fuzz.store import Store
from fmcheck.outcome import Finding
from fmcheck.scenario import Scenario
from fmcheck.subject import Subject
from fmcheck.values import is_count, is_finite_number, is_seed

__all__ = ["Campaign", "Find", "FuzzReport", "Limits"]

# Hypothesis mutates what it has drawn, by copying parts of it, as soon as ten examples were valid. Here that would
# make axes equal (most of them 1) far more often than the strategies mean to; shorter searches never get there.
_ROUND = 9
_SHRINKS = 2000
# Rounds in a row that draw nothing new: a small space has been seen, and only a clock would end the search.
_BARREN = 50


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How far a campaign goes.

    Attributes:
        examples, seconds: it ends at the first of the two that is reached; one may be None.
        shrink_seconds: for the shrinking of one rule's failure.
        seed: of the search; equal seeds draw equal scenarios.
        strict: whether warnings count as failures.

    Raises:
        DeclarationError: no end at all, a number below 1, a seed that is no integer from 0.
    """

    examples: int | None = 200
    seconds: float | None = None
    shrink_seconds: float = 60.0
    seed: int = 0
    strict: bool = False

    def __post_init__(self) -> None:
        if self.examples is None and self.seconds is None:
            raise DeclarationError("fuzz: expected a number of examples, a time, or both; found neither")
        if self.examples is not None and not is_count(self.examples):
            raise DeclarationError(f"fuzz: examples: expected a positive integer; found {self.examples!r}")
        for name in ("seconds", "shrink_seconds"):
            value = getattr(self, name)
            optional = name == "seconds" and value is None
            if not optional and not (is_finite_number(value) and value > 0):
                raise DeclarationError(f"fuzz: {name}: expected a number above 0; found {value!r}")
        if not is_seed(self.seed):
            raise DeclarationError(f"fuzz: seed: expected an integer from 0; found {self.seed!r}")


@dataclass(frozen=True, kw_only=True)
class Find:
    """A rule that a campaign found broken.

    Attributes:
        code: of the rule, or CRASH, HANG, MEMORY.
        scenario: the smallest one known that breaks it.
        findings: the rule's findings there.
        first: the scenario that broke it first.
        example: how many scenarios had been run by then; 0 when it was replayed from the database.
        shrunk: whether shrinking came to its end, so that no single thing in the scenario can be simpler.
    """

    code: str
    scenario: Scenario
    findings: tuple[Finding, ...]
    first: Scenario
    example: int
    shrunk: bool


@dataclass(frozen=True, kw_only=True)
class FuzzReport:
    """What a campaign found, and what it looked at.

    Attributes:
        examples: scenarios that were searched; shrinking runs further ones, counted in `runs` only.
        runs: scenarios that were run in all.
        refused: reasons for which the subject took no such scenario, and how often.
        unsteady: rules that failed once on a used model object, and never again on a new one or after the same calls.
        broken: rules that broke, which is fmcheck's own defect.
        interrupted: whether Ctrl-C ended it; what was found until then is here.
    """

    subject: str
    finds: tuple[Find, ...]
    examples: int
    runs: int
    coverage: Coverage
    refused: dict[str, int]
    unsteady: tuple[Finding, ...]
    seconds: float
    broken: tuple[str, ...] = ()
    interrupted: bool = False


class _Found(Exception):
    """Ends a search of Hypothesis."""


def _ignore(*_: object) -> None:
    pass


@dataclass
class Campaign:
    """One search of one subject.

    Attributes:
        executor: where scenarios run; the caller closes it.
        strategy: of scenarios, see :func:`fmcheck.strategies.scenarios`.
        database: of Hypothesis; examples of earlier campaigns are replayed first, and those that still fail are kept.
        codes: of the rules whose saved examples are replayed.
        before: called with every scenario before the model is.
        after: called when the campaign has come to its own end; not when it is killed.
        on_example: called with the number of examples so far.
        on_first: called with a new failure as soon as it is known, before it is shrunk.
        on_find: called when its shrinking has ended.
        shrinks: whether failures are shrunk at all.
    """

    subject: Subject
    executor: Executor
    strategy: SearchStrategy[Scenario]
    limits: Limits = field(default_factory=Limits)
    database: ExampleDatabase | None = None
    codes: Iterable[str] = ()
    before: Callable[[Scenario], None] = _ignore
    after: Callable[[], None] = _ignore
    on_example: Callable[[int], None] = _ignore
    on_first: Callable[[Find], None] = _ignore
    on_find: Callable[[Find], None] = _ignore
    shrinks: bool = True

    def run(self) -> FuzzReport:
        """Replay what is known, search, shrink.

        Raises:
            DeclarationError, InternalError: of the subject, or of fmcheck itself.
        """
        self._started = time.monotonic()
        self._random = Random(self.limits.seed)
        self._store = Store(self.database or InMemoryExampleDatabase(), self.subject.name)
        self._judging = Judging(self.executor, self.subject, strict=self.limits.strict, before=self.before)
        self._finds: dict[str, Find] = {}
        self._ahead: Future[list[Scenario]] = Future()
        interrupted = False
        try:
            self._replay_known()
            self._search_on()
        except KeyboardInterrupt:
            interrupted = True
        self.after()
        return FuzzReport(
            subject=self.subject.name,
            finds=tuple(sorted(self._finds.values(), key=lambda found: found.code)),
            examples=self._judging.examples,
            runs=self._judging.runs,
            coverage=self._judging.coverage,
            refused=dict(self._judging.refused),
            unsteady=tuple(self._judging.unsteady),
            broken=tuple(self._judging.broken),
            seconds=time.monotonic() - self._started,
            interrupted=interrupted,
        )

    def _replay_known(self) -> None:
        for code in self.codes:
            if self._store.knows(code) and code not in self._finds:
                self._replay(code)

    def _search_on(self) -> None:
        with ThreadPoolExecutor(1) as pool:
            seed = self._random.getrandbits(64)
            self._ahead = pool.submit(self._drawn, seed)
            barren = 0
            while not self._over() and barren < _BARREN:
                before = self._judging.examples
                scenarios, this = self._ahead.result(), seed
                seed = self._random.getrandbits(64)
                self._ahead = pool.submit(self._drawn, seed)
                if isinstance(self.executor, Local):
                    # Hypothesis seeds the global generators while it draws, and a run in this process sees them move.
                    self._ahead.result()
                self._search(scenarios, this)
                barren = 0 if self._judging.examples > before else barren + 1

    def _over(self) -> bool:
        spent = time.monotonic() - self._started
        examples, seconds = self.limits.examples, self.limits.seconds
        return bool(
            (examples is not None and self._judging.examples >= examples) or (seconds is not None and spent >= seconds)
        )

    def _left(self) -> float | None:
        seconds = self.limits.seconds
        return None if seconds is None else max(0.0, self._started + seconds - time.monotonic())

    def _first(
        self, condition: Callable[[Scenario], bool], *phases: Phase, examples: int, seed: int, key: bytes | None = None
    ) -> Scenario | None:
        """Hypothesis' `find`, which with a seed of its own uses no database; None where nothing was found."""
        found: Scenario | None = None

        @given(self.strategy)
        def search(scenario: Scenario) -> None:
            nonlocal found
            if condition(scenario):
                found = scenario
                raise _Found

        rules = settings(
            max_examples=examples,
            phases=phases,
            database=None if key is None else self._store.under(key),
            deadline=None,
            derandomize=False,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        )
        # In this order: a seed takes the database away.
        try:
            rules(seeded(seed)(search))()
        except _Found:
            return found
        return None

    def _search(self, scenarios: list[Scenario], seed: int) -> None:
        """Judge the scenarios of one round, and shrink what fails."""
        for scenario in scenarios:
            if self._over():
                return
            failing = self._judging.search(scenario)
            self.on_example(self._judging.examples)
            new = [code for code in failing if code not in self._finds]
            if new:
                self._found(new, scenario, saved=self._saved(new, scenario, seed))
            self._judged_from_history()

    def _drawn(self, seed: int) -> list[Scenario]:
        """The scenarios of one round. They are drawn before any is run, which costs no time while another one runs."""
        drawn: dict[Scenario, None] = {}

        def collect(scenario: Scenario) -> bool:
            drawn[scenario] = None
            return False

        self._first(collect, Phase.generate, examples=_ROUND, seed=seed)
        return list(drawn)

    def _saved(self, codes: list[str], scenario: Scenario, seed: int) -> bool:
        """Draw a round again up to the scenario that failed, whose example is saved for every rule that it breaks."""
        self._ahead.result()
        key = self._store.key("search")
        self._first(lambda other: other == scenario, Phase.generate, examples=_ROUND, seed=seed, key=key)
        examples = list(self._store.fetch(key))
        for example in examples:
            self._store.delete(key, example)
            for code in codes:
                self._store.save(self._store.key(code), example)
        return bool(examples)

    def _judged_from_history(self) -> None:
        """Failures that only earlier calls of the same object bring about: found on the way, never drawn as such."""
        for codes, scenario in self._judging.taken_from_history():
            self._found([code for code in codes if code not in self._finds], scenario, saved=False)

    def _replay(self, code: str) -> None:
        """Run the saved examples of a rule; Hypothesis forgets those that no longer fail."""

        def condition(scenario: Scenario) -> bool:
            return code in self._judging.failing(scenario)

        key = self._store.key(code)
        scenario = self._first(condition, Phase.reuse, examples=100, seed=self.limits.seed, key=key)
        if scenario is not None:
            self._found([code], scenario, saved=True, example=0)

    def _found(self, codes: list[str], scenario: Scenario, *, saved: bool, example: int | None = None) -> None:
        """Say what is broken, all of it before any is shrunk; then shrink each."""
        for code in codes:
            first = Find(
                code=code,
                scenario=scenario,
                findings=tuple(self._judging.verdict(scenario).of(code)),
                first=scenario,
                example=self._judging.examples if example is None else example,
                shrunk=False,
            )
            self._finds[code] = first
            self.on_first(first)
        for code in codes if self.shrinks else ():
            self._finds[code] = self._shrunk(self._finds[code], saved=saved)
            self.on_find(self._finds[code])

    def _shrunk(self, found: Find, *, saved: bool) -> Find:
        left = self._left()
        clock = self.limits.shrink_seconds if left is None else min(self.limits.shrink_seconds, max(left / 2, 1.0))
        deadline = time.monotonic() + clock
        best, done = found.scenario, False

        def fails(scenario: Scenario) -> bool:
            nonlocal best
            if time.monotonic() > deadline:
                raise OutOfTime
            failed = found.code in self._judging.failing(scenario)
            if failed and self._judging.smaller(scenario, best):
                best = scenario
            return failed

        def polish() -> None:
            # What fails is kept by its condition.
            for _ in polished(best, self.subject, fails, found.code):
                pass

        try:
            for known in self._finds.values():
                # One mistake breaks many rules: what was shrunk for another one is a good place to start from.
                if known.shrunk:
                    fails(known.scenario)
            polish()
            done = True
            if saved:
                before = best
                deadline = min(deadline, time.monotonic() + clock / 3)
                key = self._store.key(found.code)
                self._first(fails, Phase.reuse, Phase.shrink, examples=_SHRINKS, seed=self.limits.seed, key=key)
                done = best == before
                polish()
                done = True
        except OutOfTime:
            pass
        return Find(
            code=found.code,
            scenario=best,
            findings=tuple(self._judging.verdict(best).of(found.code)),
            first=found.first,
            example=found.example,
            shrunk=done,
        )
