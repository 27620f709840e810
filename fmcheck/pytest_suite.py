"""One pytest test per rule: `test_mine = fmcheck.suite(subject)`.

In a module of its own name: a module `fmcheck.suite` would take the place of the function `fmcheck.suite` as soon as
somebody imports it.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Union

import pytest

from fmcheck.errors import DeclarationError, ForeignRuleError
from fmcheck.outcome import Expected, Outcome, stale_expectations
from fmcheck.ranks.pool import Ranks
from fmcheck.report.context import Context
from fmcheck.report.text import outcome_text
from fmcheck.rules import Rule, get_rule, select_rules, unasked
from fmcheck.session import Session
from fmcheck.subject import Subject
from fmcheck.subjects import load_subject

if TYPE_CHECKING:
    # Hypothesis and the strategies are for those who fuzz.
    from fmcheck.fuzz import Limits

__all__ = ["OUTCOME", "WARNING", "Bench", "conclude", "rule_id", "suite"]

# Names of the user properties by which outcomes travel from a test (also in an xdist worker) to the summary.
OUTCOME, WARNING = "fmcheck", "fmcheck-warning"


def suite(
    subject: Subject | Callable[[], Subject] | str,
    *,
    select: Iterable[str] = (),
    ignore: Iterable[str] = (),
    expected: Mapping[str, Expected | str] | None = None,
    device: str | None = None,
    dtype: str | None = None,
    seed: int | None = None,
    strict: bool = False,
    thorough: bool = False,
    nproc: int = 1,
    fuzz: Union[bool, "Limits"] = False,
) -> Callable[..., None]:
    """A test function with one case per rule; assign it to a name that pytest collects.

        test_mine = fmcheck.suite("my_model.checks:subject", ignore=["FM804"])

    The ids are code and name of the rule, so that `-k FM203` runs one. The runs are made at the first test that wants
    them and shared by the others of the process; with xdist every worker makes those that its tests want.

    Args:
        subject: a Subject, a function that makes one, or its `package.module:attribute`.
        expected: rule codes that are expected to fail, with the reason or an :class:`~fmcheck.run.Expected`.
        device, dtype, seed: replace those of the subject's native case.
        strict: whether warnings fail too.
        thorough: whether to judge the costly rules too; otherwise only those that `select` names one by one.
        nproc: on how many ranks rules about ranks are judged, for a subject given by its name; 1 skips them.
        fuzz: one more test, `fuzz`, that searches the odd corners of the subject: as far as the Hypothesis profile of
            the test run says (`--hypothesis-profile fmcheck-gate` or `fmcheck-nightly`, or one of your own), or as
            these limits say. A subject given by its name runs in a process of its own, which may crash or hang.

    Raises:
        DeclarationError: a wrong subject, selection or expectation.
    """
    name = subject if isinstance(subject, str) else getattr(subject, "name", getattr(subject, "__name__", "subject"))
    found = _found(subject)
    changes = {"device": device, "dtype": dtype, "seed": seed}
    found = found.but(case=found.case.but(**{key: value for key, value in changes.items() if value is not None}))
    expectations = {get_rule(code).code: _as_expected(code, entry) for code, entry in (expected or {}).items()}
    select = tuple(select)
    rules = select_rules(select, ignore)
    without = () if thorough else unasked(select)
    load = partial(load_subject, subject) if isinstance(subject, str) else None
    ranks = Ranks(load, nproc)
    bench = Bench(name, found, expectations, strict=strict, without=without, ranks=ranks)

    hunt = [] if fuzz is False else [None]

    @pytest.mark.parametrize("rule", [*rules, *hunt], ids=[*map(rule_id, rules), *("fuzz" for _ in hunt)])
    def test_rule(rule: Rule | None, request: pytest.FixtureRequest) -> None:
        nodeid = request.node.nodeid.partition("[")[0]
        if rule is None:
            bench.fuzz([entry.code for entry in rules], None if fuzz is True else fuzz or None)
            return
        bench.judge(rule, request.node, rerun=f"pytest '{nodeid}' -k {{code}}")

    return test_rule


@dataclass
class Bench:
    """One session that the tests of a suite share, made at the first of them."""

    target: str
    subject: Subject
    expected: Mapping[str, Expected] = field(default_factory=dict)
    strict: bool = False
    without: Collection[str] = ()
    ranks: Ranks = field(default_factory=Ranks)

    @cached_property
    def session(self) -> Session:
        return Session(self.subject, without=self.without, ranks=self.ranks)

    def judge(self, rule: Rule, node: pytest.Item, *, rerun: str) -> None:
        """Judge one rule inside a test and end the test as the outcome says."""
        try:
            outcome = self.session.judge(rule, self.expected.get(rule.code))
        except (DeclarationError, ForeignRuleError) as error:
            pytest.fail(f"fmcheck: {error}", pytrace=False)
        context = Context(target=self.target, subject=self.session.subject, rerun=rerun)
        stale = list(stale_expectations([outcome], self.expected))
        conclude(outcome, context, node, stale=stale, strict=self.strict)

    def fuzz(self, codes: list[str], limits: "Limits | None") -> None:
        """Search, and fail with every rule that is broken, in its smallest case, unless it was expected to be."""
        from fmcheck.fuzz_pytest import searched

        try:
            text = searched(self.target, self.subject, codes, self.expected, limits, strict=self.strict)
        except DeclarationError as error:
            pytest.fail(f"fmcheck: {error}", pytrace=False)
        if text:
            pytest.fail(text, pytrace=False)


def conclude(outcome: Outcome, context: Context, node: pytest.Item, *, stale: list[str], strict: bool) -> None:
    """End a test as the outcome of its rule says, and leave a note for the summary.

    Failed fails with the text report; expected failure is an xfail; skipped, not informative and out of resources
    are skips with their reason, since nothing was judged; a stale expectation fails.
    """
    warned = any(finding.severity == "warning" for finding in outcome.findings)
    failed = outcome.status == "failed" or bool(stale) or (strict and warned and outcome.status == "passed")
    node.user_properties.append((OUTCOME, "failed" if failed else outcome.status))
    text = outcome_text(outcome, context) if outcome.findings else ""
    if stale:
        pytest.fail(f"stale expected failure: {'; '.join(stale)}", pytrace=False)
    if outcome.status == "expected":
        pytest.xfail(outcome.reason)
    if outcome.status in ("skipped", "not informative", "out of resources"):
        lead = "" if outcome.status == "skipped" else f"{outcome.status}: "
        pytest.skip(f"{outcome.rule.code} {lead}{outcome.reason}")
    if failed:
        pytest.fail(text, pytrace=False)
    if text:
        node.user_properties.append((WARNING, text))


def rule_id(rule: Rule) -> str:
    """`FM203-wrong-guidance`."""
    return f"{rule.code}-{rule.name}"


def _found(subject: Any) -> Subject:
    if isinstance(subject, str):
        return load_subject(subject)
    found = subject() if callable(subject) and not isinstance(subject, Subject) else subject
    if not isinstance(found, Subject):
        raise DeclarationError(
            f"fmcheck.suite: expected a Subject, a function that makes one, or a string; found {type(found).__name__}"
        )
    return found


def _as_expected(code: str, entry: Expected | str) -> Expected:
    expected = Expected(entry) if isinstance(entry, str) else entry
    if not expected.reason.strip():
        raise DeclarationError(f"fmcheck.suite: expected failure {code} has no reason; say why it is accepted")
    return expected
