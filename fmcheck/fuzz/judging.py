"""Verdicts on scenarios, each made once: first on a used model object, and if a rule fails there, on a new one."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from fmcheck.fuzz.coverage import Coverage
from fmcheck.fuzz.executor import Executor
from fmcheck.outcome import Finding
from fmcheck.scenario import Call, Scenario
from fmcheck.subject import Subject
from fmcheck.trial import CRASH, HANG, MEMORY, Verdict

__all__ = ["Judging", "OutOfTime"]

# Calls of one object that are tried as the cause of a failure that a new object does not show.
_HISTORY = 64


class OutOfTime(BaseException):
    """Ends a search or a shrink from inside its condition. No Exception, which Hypothesis would take for a bug."""


class Judging:
    """Verdicts of a campaign.

    A verdict that the campaign builds on always comes from new model objects, so that a scenario alone decides it and
    Hypothesis never sees it waver. What passes on a used object is believed: building one for every example would cost
    more than running it.
    """

    def __init__(
        self, executor: Executor, subject: Subject, *, strict: bool, before: Callable[[Scenario], None]
    ) -> None:
        self._executor, self._subject, self._strict, self._before = executor, subject, strict, before
        self._failed: dict[Scenario, Verdict] = {}
        self._passed: set[Scenario] = set()
        # What the shared object and the one that last calls are held against were asked for.
        self._used: list[Call] = []
        self._other: list[Call] = []
        self._from_history: list[tuple[list[str], Scenario]] = []
        self.coverage = Coverage()
        self.refused: Counter[str] = Counter()
        self.unsteady: list[Finding] = []
        self.broken: list[str] = []
        self.examples = 0
        self.runs = 0

    def search(self, scenario: Scenario) -> list[str]:
        """Codes that fail, for an example of the search; counts it unless it was judged before."""
        if scenario not in self._passed and scenario not in self._failed:
            self.examples += 1
        return self.failing(scenario)

    def failing(self, scenario: Scenario) -> list[str]:
        """Codes that fail on new model objects."""
        if scenario in self._passed:
            return []
        return self.verdict(scenario).failing(strict=self._strict)

    def verdict(self, scenario: Scenario) -> Verdict:
        """The verdict on a scenario, made now if it was not made before."""
        if scenario in self._failed:
            return self._failed[scenario]
        verdict = self._run(scenario, fresh=False)
        codes = verdict.failing(strict=self._strict)
        missing: list[str] = []
        if codes:
            used = verdict
            verdict = self._run(scenario, fresh=True)
            missing = [code for code in codes if code not in verdict.failing(strict=self._strict)]
            if missing:
                self._blame_history(missing, scenario, used)
        if not missing:
            self._remember(scenario, codes)
        if verdict.failing(strict=self._strict):
            self._failed[scenario] = verdict
        else:
            self._passed.add(scenario)
        return verdict

    def _remember(self, scenario: Scenario, codes: list[str]) -> None:
        """Keep what the shared objects were asked for, also where it failed: that is part of their history."""
        if not {CRASH, HANG, MEMORY}.isdisjoint(codes):
            # They went with their process, or were left half-way.
            self._used, self._other = [], []
            self._executor.renew()
            return
        self._used = [*self._used, *scenario.calls][-_HISTORY:]
        if len(scenario.calls) > 1:
            self._other = [*self._other, scenario.last][-_HISTORY:]

    def _run(self, scenario: Scenario, *, fresh: bool) -> Verdict:
        self._before(scenario)
        self.runs += 1
        verdict = self._executor.judge(scenario, fresh=fresh)
        if verdict.refused:
            self.refused[verdict.refused.partition(":")[0]] += 1
        self.broken += [text for text in verdict.broken if text not in self.broken]
        self.coverage.note(scenario, verdict, self._subject)
        return verdict

    def _blame_history(self, codes: list[str], scenario: Scenario, used: Verdict) -> None:
        """Look for the earlier calls without which these rules hold; the shared objects are given up."""
        histories, self._used, self._other = (self._used, self._other), [], []
        self._executor.renew()
        for tried in _with_history(histories, scenario):
            if not codes:
                break
            verdict = self._run(tried, fresh=True)
            found = [code for code in codes if code in verdict.failing(strict=self._strict)]
            if found:
                self._failed[tried] = verdict
                self._from_history.append((found, tried))
                codes = [code for code in codes if code not in found]
        self.unsteady += [used.of(code)[0] for code in codes]

    def taken_from_history(self) -> list[tuple[list[str], Scenario]]:
        """Failures found by :meth:`_blame_history` since the last time, with the scenarios that show them."""
        taken, self._from_history = self._from_history, []
        return taken

    def smaller(self, scenario: Scenario, other: Scenario) -> bool:
        """Whether a scenario is simpler than another one, where both fail."""
        return _size(scenario) < _size(other)


def _with_history(histories: Iterable[list[Call]], scenario: Scenario) -> Iterator[Scenario]:
    """The scenario after the last one, two, four, … calls of either history."""
    longest = max(map(len, histories), default=0)
    count = 1
    while count < 2 * longest:
        for history in histories:
            if history and count < 2 * len(history):
                yield Scenario((*history[-count:], *scenario.calls), scenario.asks)
        count *= 2


def _size(scenario: Scenario) -> tuple[object, ...]:
    seeds = sum(call.case.seed + (call.global_seed or 0) for call in scenario.calls)
    words = sum(len(prompt) for call in scenario.calls for prompt in call.case.prompts)
    weights = sum(abs(call.case.guidance_scale) for call in scenario.calls)
    return len(scenario.calls), len(scenario.asks), scenario.cost, weights, words, seeds
