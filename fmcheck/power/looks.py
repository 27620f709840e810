"""In which order a faulty pipeline is looked at: what needs no further run first, so that few runs are made."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fmcheck.errors import InternalError
from fmcheck.outcome import Outcome
from fmcheck.rules import Rule
from fmcheck.session import Session
from fmcheck.wish import Wish

__all__ = ["Look", "looks_of", "next_looks"]

# So many runs a rule is taken to want that names some only later.
_FOLLOWING = 6


@dataclass(frozen=True)
class Look:
    """Rules that are judged over the same runs: trace rules over one run, or one rule about several.

    `over` is that one run; None for a relation, whose own `wishes` are made.
    """

    rules: tuple[Rule, ...]
    wishes: tuple[Wish, ...]
    over: Wish | None = None

    @property
    def open_ended(self) -> bool:
        """Whether it may need further runs, known only when the first ones are made."""
        return any(rule.follow_up is not None for rule in self.rules)

    def missing(self, session: Session) -> frozenset[Wish]:
        """The runs that would have to be made."""
        return frozenset(wish for wish in self.wishes if wish not in session.made)

    def judge(self, session: Session) -> Iterator[Outcome]:
        """Make the runs and judge. A rule that breaks on a broken pipeline notices nothing, and is left out."""
        for rule in self.rules:
            try:
                outcome = session.judge(rule) if self.over is None else session.judge(rule, over=[self.over])
            except InternalError:
                continue
            yield outcome


def looks_of(session: Session, rules: Iterable[Rule], kind: str) -> list[Look]:
    """Every look in which a fault of sampling (`generate`) or of training (`loss`) can show."""
    plan, rules = session.plan, list(rules)
    plain = plan.plain if kind == "generate" else [plan.loss]
    looks = []
    for wish in plain:
        traced = tuple(rule for rule in rules if rule.wishes is None and wish.kind in rule.kinds)
        if traced:
            looks.append(Look(traced, tuple(_with_earlier(wish)), wish))
    for rule in rules:
        wishes = list((rule.wishes(plan) if rule.wishes else {}).values())
        if any(wish.kind == kind for wish in wishes):
            looks.append(Look((rule,), tuple(dict.fromkeys(w for wish in wishes for w in _with_earlier(wish)))))
    return looks


def next_looks(session: Session, looks: list[Look]) -> list[Look]:
    """The looks that need the fewest further runs, all of them the same ones; the first by order among equals."""
    missing = [(look, look.missing(session)) for look in looks]
    first, fewest = min(missing, key=lambda entry: len(entry[1]) + _FOLLOWING * entry[0].open_ended)
    return [first] if first.open_ended else [look for look, m in missing if m == fewest and not look.open_ended]


def _with_earlier(wish: Wish) -> Iterator[Wish]:
    for earlier in (*wish.after, *([wish.rotates_text_of] if wish.rotates_text_of else [])):
        yield from _with_earlier(earlier)
    yield wish
