"""What a rule is, the evidence it yields, and the list of all rules."""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from fmcheck.errors import DeclarationError, InternalError, did_you_mean
from fmcheck.plan import Plan, Run, Wish
from fmcheck.rules.foreign import discover, package_of
from fmcheck.spec import FlowSpec
from fmcheck.subject import ROLES

__all__ = [
    "FAMILIES",
    "Check",
    "Rule",
    "Severity",
    "all_rules",
    "family_title",
    "get_rule",
    "rule",
    "select_rules",
    "unasked",
]

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
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*$")
# What `needs` may name besides observation points and their arguments.
_PARTS = ("entry", "tokenize", "pad", "masked", "loss", "generate_rank", "shard", "other_device", "golden")
_KINDS = ("generate", "loss")


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
        conventions: fields of the spec that it goes by: where a correct pipeline fails it, one of them is wrong.
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
    conventions: tuple[str, ...] = ()

    @property
    def family(self) -> str:
        return self.code[:-2]

    @property
    def package(self) -> str:
        """The distribution (or top-level module) that brought the rule; empty for fmcheck's own."""
        return package_of(self.function.__module__)

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
    conventions: Iterable[str] = (),
) -> Callable[[RuleFunction], RuleFunction]:
    """Register a rule: a generator function that yields a :class:`Check` for every comparison it makes.

    Without `wishes` the function is given every plain :class:`~fmcheck.plan.Run` in turn; with them, a mapping of
    the runs it wished for. It raises :class:`~fmcheck.errors.NotInformative` when its premise does not hold (see
    `fmcheck.rules.require`).

    Raises:
        DeclarationError: a malformed, reserved or taken code or name, a need that no subject can meet, an unknown kind
            of run, or a rule without documentation. Among fmcheck's own rules an InternalError.
    """

    def register(function: RuleFunction) -> RuleFunction:
        own = getattr(function, "__module__", "").partition(".")[0] == "fmcheck"
        wrong = _fault(code, name, function, needs, kinds, own=own)
        wrong = wrong or _wrong_words(code, "conventions", conventions, [field.name for field in fields(FlowSpec)])
        if wrong:
            raise (InternalError if own else DeclarationError)(wrong)
        asked = tuple(needs), wishes, tuple(kinds)
        said = costly, finish, tuple(conventions)
        _RULES[code] = Rule(code, name, function, *asked, judges_crashes, follow_up, *said)
        return function

    return register


def _fault(code: str, name: str, function: Any, needs: Any, kinds: Any, *, own: bool) -> str:
    """What is wrong with a rule that is to be registered; empty when nothing is."""
    if not isinstance(code, str) or not _CODE.match(code):
        return f"rule code {code!r}: expected two to four capital letters and three digits, such as MY001"
    if code.startswith("FM") and code not in _RULES and not own:
        return (
            f"rule code {code}: those that begin with FM are reserved for fmcheck; take letters of your own, as MY001"
        )
    if code in _RULES:
        owner = f" of package {_RULES[code].package!r}" if _RULES[code].package else ""
        return f"rule code {code} is taken by {_RULES[code].name}{owner}; codes are never reused, so take another"
    if not isinstance(name, str) or not _NAME.match(name):
        return f"rule {code}: name {name!r}: expected small letters and hyphens that name the fault, as too-slow"
    namesake = next((known for known in _RULES.values() if known.name == name), None)
    if namesake is not None:
        return f"rule {code}: name {name!r} is that of {namesake.code}, and names select rules; take another"
    if not callable(function) or not hasattr(function, "__code__"):
        return f"rule {code}: expected a function that yields Check; found {type(function).__name__}"
    if not function.__doc__:
        return f"rule {code} has no docstring, and the docstring is its documentation (fmcheck explain {code})"
    return _wrong_words(code, "needs", needs, _needs()) or _wrong_words(code, "kinds", kinds, _KINDS)


def _needs() -> list[str]:
    return [*ROLES, *(f"{role}.{argument}" for role, known in ROLES.items() for argument in known), *_PARTS]


def _wrong_words(code: str, what: str, words: Any, known: Iterable[str]) -> str:
    if isinstance(words, str) or not isinstance(words, Iterable):
        return f"rule {code}: {what}: expected a tuple such as ({words!r},); found {words!r}"
    known = list(known)
    for word in words:
        if word not in known:
            return f"rule {code}: {what}: unknown {word!r}{did_you_mean(word, known)}; known: {', '.join(known)}"
    return ""


def _known() -> dict[str, Rule]:
    """All rules by code, those of other packages among them.

    Raises:
        DeclarationError: the rules of another package cannot be imported.
    """
    discover()
    return _RULES


def family_title(rule: Rule) -> str:
    """What the family of a rule is about, or whose rules they are."""
    return FAMILIES.get(rule.family) or f"rules of {rule.package}"


def all_rules() -> list[Rule]:
    """Every registered rule, by code."""
    return sorted(_known().values(), key=lambda r: r.code)


def get_rule(code: str) -> Rule:
    """The rule with a code (or name).

    Raises:
        DeclarationError: there is none; names the nearest.
    """
    for known in _known().values():
        if code.upper() == known.code or code == known.name:
            return known
    names = [*_known(), *(r.name for r in _known().values())]
    raise DeclarationError(f"no rule {code!r}{did_you_mean(code, names)}; `fmcheck rules` lists them")


def select_rules(select: Iterable[str] = (), ignore: Iterable[str] = ()) -> list[Rule]:
    """Rules whose code starts with one of `select` (all when empty) and with none of `ignore`; names are codes too.

    Raises:
        DeclarationError: a prefix that matches no rule, or a choice that leaves none: such a gate would check nothing.
    """
    select, ignore = [_as_prefix(s) for s in select], [_as_prefix(s) for s in ignore]
    chosen = list(_chosen(select, ignore))
    if not chosen and _known():
        raise DeclarationError(f"select {', '.join(select) or 'all'} and ignore {', '.join(ignore)} leave no rule")
    return chosen


def unasked(select: Iterable[str]) -> frozenset[str]:
    """Codes of the costly rules that a selection does not name one by one: a family's prefix does not ask for them."""
    named = {_as_prefix(text) for text in select}
    return frozenset(known.code for known in _known().values() if known.costly and known.code not in named)


def _as_prefix(text: str) -> str:
    """The code of a rule's name, or the text itself as the beginning of codes."""
    code = next((known.code for known in _known().values() if known.name == text), text.upper())
    if not code or not any(known.startswith(code) for known in _known()):
        hint = did_you_mean(text, [*_known(), *(known.name for known in _known().values())])
        raise DeclarationError(f"no rule code starts with {text!r}{hint}; `fmcheck rules` lists them")
    return code


def _chosen(select: list[str], ignore: list[str]) -> Iterator[Rule]:
    for known in all_rules():
        wanted = not select or any(known.code.startswith(prefix) for prefix in select)
        if wanted and not any(known.code.startswith(prefix) for prefix in ignore):
            yield known
