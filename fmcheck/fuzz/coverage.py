"""What a campaign has seen of the case space, so that a clean one can say what it looked at."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from fmcheck.scenario import Scenario
from fmcheck.subject import Subject
from fmcheck.trial import Verdict

__all__ = ["Coverage"]


@dataclass
class Coverage:
    """Counts by axis of all scenarios that were run.

    Attributes:
        axes: how often each value of an axis was seen; sizes are counted in cells of the latent.
        coincidences: how often two axes were equal, or all distinct.
        judged: how many scenarios each rule really compared something in.
    """

    axes: dict[str, Counter[object]] = field(default_factory=dict)
    coincidences: Counter[str] = field(default_factory=Counter)
    judged: Counter[str] = field(default_factory=Counter)

    def note(self, scenario: Scenario, verdict: Verdict, subject: Subject) -> None:
        """Count one scenario."""
        self.judged.update(verdict.judged)
        self._add("calls", len(scenario.calls))
        self._add("rules asked", len(scenario.asks))
        for call in scenario.calls:
            case = call.case
            channels, h, w = subject.spec.latent_size(case.height, case.width)
            weight = case.guidance_scale - subject.spec.neutral_scale
            self._add("batch", case.batch)
            self._add("size", f"{case.height}x{case.width}")
            self._add("aspect", _aspect(h, w))
            self._add("steps", case.num_steps)
            self._add("guidance", _weight_class(weight))
            self._add("dtype", case.dtype)
            self._add("device", case.device)
            self._add("kind", call.kind)
            self._add("tokens", call.tokens)
            self._add("prompts", _prompt_class(case.prompts))
            equal = {"B = w": case.batch == w, "B = h": case.batch == h, "h = w": h == w, "h w = C": h * w == channels}
            self.coincidences.update([name for name, holds in equal.items() if holds])
            if len({case.batch, channels, h, w, h * w}) == 5:
                self.coincidences["all distinct"] += 1

    def _add(self, axis: str, value: object) -> None:
        self.axes.setdefault(axis, Counter())[value] += 1

    def merge(self, other: "Coverage") -> None:
        """Add the counts of another campaign."""
        for axis, counts in other.axes.items():
            self.axes.setdefault(axis, Counter()).update(counts)
        self.coincidences.update(other.coincidences)
        self.judged.update(other.judged)

    def lines(self) -> Iterable[tuple[str, str]]:
        """Axis and what was seen of it, for reports."""
        for axis, counts in self.axes.items():
            yield axis, _summary(counts)
        if self.coincidences:
            yield "coincidences", ", ".join(f"{name} ({count})" for name, count in self.coincidences.most_common())


_SHOWN = 8


def _summary(counts: Counter[object]) -> str:
    if len(counts) > _SHOWN:
        numbers = [value for value in counts if isinstance(value, int)]
        span = f", {min(numbers)} to {max(numbers)}" if len(numbers) == len(counts) else ""
        return f"{len(counts)} different{span}"
    return ", ".join(f"{value} ({count})" for value, count in sorted(counts.items(), key=lambda item: str(item[0])))


def _aspect(h: int, w: int) -> str:
    if h == w:
        return "square"
    longer, ratio = ("tall" if h > w else "wide"), max(h, w) / min(h, w)
    return f"{longer}, beyond 3:1" if ratio > 3 else longer


def _weight_class(weight: float) -> str:
    if weight == 0:
        return "off"
    if weight < 0:
        return "negative"
    if weight > 20:
        return "huge"
    return "below 1" if weight < 1 else "1 to 20"


def _prompt_class(prompts: tuple[str, ...]) -> str:
    if len(prompts) == 1:
        return "one" if prompts[0] else "one, empty"
    if "" in prompts:
        return "some empty"
    return "equal" if len(set(prompts)) == 1 else "different"
