"""What a rule is, the evidence it yields, and the list of all rules."""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fmcheck.errors import DeclarationError, InternalError, did_you_mean
from fmcheck.plan import Plan, Run, Wish

__all__ = ["FAMILIES", "Check", "Rule", "Severity", "all_rules", "get_rule", "rule", "select_rules", "unasked"]

Severity = Literal["error", "warning", "note"]

FAMILIES: Mapping[str, str] = {
    "FM1": "shape, rank, dtype and device of every tensor",
    "FM2": "guidance",
    "FM3": "time",
    "FM4": "initial state",
    "FM5": "integration",
    "FM6": "autoencoder chain",
    "FM7": "evaluation interface",
    "FM8": "batch, text and parity",
    "FM9": "training against inference",
}

_CODE = re.compile(r"[A-Z]{2,4}\d{3}$")


@dataclass(frozen=True, kw_only=True)
class Check:
    """One comparison that a rule made, whether it held or not. A rule that yields none has not looked.

    Attributes:
        holds: whether the property held.
        message: when it does not hold, what came and what should have come, in one sentence.
        where: row, index, time, step.
        used, allowed: the error and its derived bound, where the property is numeric; reports show their ratio.
        diagnosis: the known mistake that reproduces the observed number.
        severity: of the finding when it does not hold; a warning fails only a `--strict` gate. A `note` that holds
            is no comparison but something to tell the reader (`Outcome.notes`).
        measured: no comparison either, but what the subject was measured to do (`Outcome.measured`).
    """

    holds: bool
    message: str = ""
    where: str = ""
    used: float | None = None
    allowed: float | None = None
    diagnosis: str | None = None
    severity: Severity = "error"
    measured: str = ""

    @property
    def ratio(self) -> float | None:
        """Used over allowed: above 1 is a failure; a slow creep towards 1 deserves a look."""
        if self.used is None or self.allowed is None:
            return None
        return self.used / self.allowed if self.allowed else (0.0 if self.used == 0 else float("inf"))


# A trace rule judges one run at a time; a relation rule is given the runs it wished for, by name.
RuleFunction = Callable[[Any], Iterable[Check]]
FollowUp = Callable[[Plan, Mapping[str, Run]], Mapping[str, Wish]]


@dataclass(frozen=True)
class Rule:
    """A registered rule. `code` is stable and never reused; `name` names the fault.

    Attributes:
        needs: what the subject must offer: observation points (`velocity`, `sample`, …), parts of the subject
            (`tokenize`, `pad`, `masked`, `loss`, `generate_rank`, `shard`), arguments of a point (`velocity.null`), or
            of the machine an `other_device`.
        wishes: the runs of a relation rule, from the plan of a subject; None for a trace rule.
        kinds: which traces a trace rule judges: `generate`, `loss`.
        judges_crashes: whether traces that ended in an exception are judged too.
        follow_up: further runs of a relation rule that can only be named once its first ones were made.
        costly: what makes it so slow that it is judged only when asked for; empty for most rules.
        finish: puts back what the runs have left in the process, once the rule is judged, whatever happened.
    """

    code: str
    name: str
    function: RuleFunction
    needs: tuple[str, ...]
    wishes: Callable[[Plan], Mapping[str, Wish]] | None
    kinds: tuple[str, ...]
    judges_crashes: bool
    follow_up: FollowUp | None = None
    costly: str = ""
    finish: Callable[[], None] = lambda: None

    @property
    def family(self) -> str:
        return self.code[:-2]

    @property
    def on_ranks(self) -> bool:
        """Whether its runs need several processes."""
        return "generate_rank" in self.needs or "shard" in self.needs

    @property
    def doc(self) -> str:
        return inspect.getdoc(self.function) or ""

    @property
    def summary(self) -> str:
        """First paragraph of the documentation: what must hold."""
        return " ".join(self.doc.split("\n\n")[0].split())

    def __str__(self) -> str:
        return f"{self.code} {self.name}"


_RULES: dict[str, Rule] = {}


def rule(
    code: str,
    name: str,
    *,
    needs: Iterable[str] = ("velocity",),
    wishes: Callable[[Plan], Mapping[str, Wish]] | None = None,
    kinds: Iterable[str] = ("generate",),
    judges_crashes: bool = False,
    follow_up: FollowUp | None = None,
    costly: str = "",
    finish: Callable[[], None] = lambda: None,
) -> Callable[[RuleFunction], RuleFunction]:
    """Register a rule: a generator function that yields a :class:`Check` for every comparison it makes.

    Without `wishes` the function is given every plain :class:`~fmcheck.plan.Run` in turn; with them, a mapping of
    the runs it wished for. It raises :class:`~fmcheck.errors.NotInformative` when its premise does not hold.

    Raises:
        InternalError: a malformed or repeated code, or a rule without documentation.
    """
    if not _CODE.match(code):
        raise InternalError(f"rule code {code!r}: expected letters and three digits, such as FM203 or MY001")

    def register(function: RuleFunction) -> RuleFunction:
        if code in _RULES:
            raise InternalError(f"rule code {code} is taken by {_RULES[code].name}; codes are never reused")
        if not function.__doc__:
            raise InternalError(f"rule {code} has no docstring, and the docstring is its documentation")
        asked = tuple(needs), wishes, tuple(kinds)
        _RULES[code] = Rule(code, name, function, *asked, judges_crashes, follow_up, costly, finish)
        return function

    return register


def all_rules() -> list[Rule]:
    """Every registered rule, by code."""
    return sorted(_RULES.values(), key=lambda r: r.code)


def get_rule(code: str) -> Rule:
    """The rule with a code (or name).

    Raises:
        DeclarationError: there is none; names the nearest.
    """
    for known in _RULES.values():
        if code.upper() == known.code or code == known.name:
            return known
    names = [*_RULES, *(r.name for r in _RULES.values())]
    raise DeclarationError(f"no rule {code!r}{did_you_mean(code, names)}; `fmcheck rules` lists them")


def select_rules(select: Iterable[str] = (), ignore: Iterable[str] = ()) -> list[Rule]:
    """Rules whose code starts with one of `select` (all when empty) and with none of `ignore`; names are codes too.

    Raises:
        DeclarationError: a prefix that matches no rule, or a choice that leaves none: such a gate would check nothing.
    """
    select, ignore = [_as_prefix(s) for s in select], [_as_prefix(s) for s in ignore]
    chosen = list(_chosen(select, ignore))
    if not chosen and _RULES:
        raise DeclarationError(f"select {', '.join(select) or 'all'} and ignore {', '.join(ignore)} leave no rule")
    return chosen


def unasked(select: Iterable[str]) -> frozenset[str]:
    """Codes of the costly rules that a selection does not name one by one: a family's prefix does not ask for them."""
    named = {_as_prefix(text) for text in select}
    return frozenset(known.code for known in _RULES.values() if known.costly and known.code not in named)


def _as_prefix(text: str) -> str:
    """The code of a rule's name, or the text itself as the beginning of codes."""
    code = next((known.code for known in _RULES.values() if known.name == text), text.upper())
    if not code or not any(known.startswith(code) for known in _RULES):
        hint = did_you_mean(text, [*_RULES, *(known.name for known in _RULES.values())])
        raise DeclarationError(f"no rule code starts with {text!r}{hint}; `fmcheck rules` lists them")
    return code


def _chosen(select: list[str], ignore: list[str]) -> Iterator[Rule]:
    for known in all_rules():
        wanted = not select or any(known.code.startswith(prefix) for prefix in select)
        if wanted and not any(known.code.startswith(prefix) for prefix in ignore):
            yield known
