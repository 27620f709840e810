"""Scenario: what one fuzz example or one reproduction asks of a model, as plain data that a text file can hold."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from fmcheck.case import Case
from fmcheck.errors import DeclarationError, only_keys
from fmcheck.values import is_seed

__all__ = ["Call", "Scenario", "Tokens"]

Tokens = Literal["plain", "padded", "masked"]
_KINDS = ("generate", "loss")


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of the subject.

    Attributes:
        case: what is asked for.
        kind: `generate`, or one training `loss` on images of that size.
        tokens: the subject's own tokens, `padded` further, or with other values under the mask (`masked`).
        global_seed: seeds the global random generators before the call; None leaves them as every scenario begins,
            seeded with 0.

    Raises:
        DeclarationError: an unknown kind or kind of tokens, a seed that is no integer in [0, 2**32).
    """

    case: Case
    kind: Literal["generate", "loss"] = "generate"
    tokens: Tokens = "plain"
    global_seed: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.case, Case):
            raise DeclarationError(f"Call.case: expected a Case; found {type(self.case).__name__}")
        for name, known in (("kind", _KINDS), ("tokens", get_args(Tokens))):
            value = getattr(self, name)
            if not (isinstance(value, str) and value in known):
                raise DeclarationError(f"Call.{name}: expected one of {', '.join(known)}; found {value!r}")
        seed = self.global_seed
        # No bool and no float, although Python finds False and 0.0 equal to 0.
        if seed is not None and not is_seed(seed, 32):
            raise DeclarationError(f"Call.global_seed: expected an integer in [0, 2**32); found {seed!r}")

    @property
    def cost(self) -> int:
        """`pixels x steps x batch`, the unit in which budgets are given."""
        case = self.case
        return case.height * case.width * case.num_steps * case.batch

    def but(self, **changes: Any) -> "Call":
        """The same call with some fields changed; fields of its case are found there."""
        own = {key: value for key, value in changes.items() if key in _FIELDS}
        rest = {key: value for key, value in changes.items() if key not in _FIELDS}
        return replace(self, **(own | ({"case": own.get("case", self.case).but(**rest)} if rest else {})))

    def __str__(self) -> str:
        extras = [self.kind] * (self.kind != "generate") + [f"{self.tokens} tokens"] * (self.tokens != "plain")
        extras += [f"global seed {self.global_seed}"] * (self.global_seed is not None)
        return "  ".join([str(self.case), *extras])


_FIELDS = tuple(field.name for field in fields(Call))


@dataclass(frozen=True)
class Scenario:
    """Calls of one new model object, in order, each judged; then rules that make runs of their own.

    Attributes:
        calls: one or more. From the second on, the last one is also held against the same call on a new object.
        asks: codes of rules that are judged over the whole plan, as `fmcheck run` does, with the case of the last call
            in the place of the native one.

    Raises:
        DeclarationError: no call.
    """

    calls: tuple[Call, ...]
    asks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "calls", tuple(self.calls))
        object.__setattr__(self, "asks", tuple(self.asks))
        if not self.calls or not all(isinstance(call, Call) for call in self.calls):
            raise DeclarationError(f"Scenario.calls: expected one Call or more; found {self.calls!r}")
        if not all(isinstance(code, str) for code in self.asks):
            raise DeclarationError(f"Scenario.asks: expected rule codes; found {self.asks!r}")

    @property
    def last(self) -> Call:
        return self.calls[-1]

    @property
    def cost(self) -> int:
        """Of its own calls, without the runs that the asked rules make."""
        return sum(call.cost for call in self.calls)

    def as_table(self) -> dict[str, Any]:
        """Plain data for TOML or JSON; `Scenario.from_table` is its inverse. Fields that are None are left out."""
        calls = [{k: v for k, v in asdict(call).items() if v is not None} for call in self.calls]
        tables = [{**table, "case": call.case.as_table()} for table, call in zip(calls, self.calls, strict=True)]
        return {"asks": list(self.asks), "calls": tables}

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> "Scenario":
        """A scenario from plain data; unknown keys are errors with the nearest known name.

        Raises:
            DeclarationError: a key that does not exist, or a value of the wrong type.
        """
        only_keys(table, "scenario", ("asks", "calls"))
        calls, asks = table.get("calls"), table.get("asks", [])
        for name, value in (("calls", calls), ("asks", asks)):
            if not isinstance(value, list | tuple):
                raise DeclarationError(f"scenario, {name}: expected an array; found {type(value).__name__}")
        return cls(tuple(map(_call, calls or ())), tuple(asks))

    def __str__(self) -> str:
        lines = [str(call) for call in self.calls]
        asked = [f"then {', '.join(self.asks)} with that case as the native one"] * bool(self.asks)
        return "\n".join([*lines, *asked])


def _call(table: Any) -> Call:
    only_keys(table, "call", _FIELDS)
    if "case" not in table:
        raise DeclarationError("call: expected a case; found none")
    return Call(**{**table, "case": Case.from_table(table["case"])})
