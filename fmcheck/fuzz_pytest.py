"""A campaign inside a test: as far as the Hypothesis profile of the test run says, over its example database."""

from collections.abc import Iterable, Mapping
from contextlib import closing

from hypothesis import settings

from fmcheck.fuzz import Find, Isolated, Limits, Local, campaign_of
from fmcheck.fuzz.profiles import limits_of
from fmcheck.outcome import Expected
from fmcheck.report.fuzz import find_page
from fmcheck.report.layout import plain
from fmcheck.subject import Subject
from fmcheck.subjects import load_subject
from fmcheck.trial import MEMORY, Bench

__all__ = ["searched"]

_WIDTH = 100


def searched(
    target: str,
    subject: Subject,
    codes: Iterable[str],
    expected: Mapping[str, Expected],
    limits: Limits | None,
    *,
    strict: bool = False,
) -> str:
    """What a campaign found, as the text of a failure; empty when nothing was.

    Args:
        target: the subject's name. Where the subject is the one that this name loads, it runs in a process of its own.
        expected: rules whose failures are known, see :func:`fmcheck.suite`.
        limits: None takes them from the current Hypothesis profile.

    Raises:
        DeclarationError, InternalError: of the subject, or of fmcheck itself.
    """
    chosen, database = limits_of(settings(), strict=strict)
    bench = Bench(subject, tuple(codes))
    executor = Isolated(_Loader(target, subject.case, bench.select)) if _loadable(target, subject) else Local(bench)
    with closing(executor):
        campaign = campaign_of(bench, executor, limits=limits or chosen, database=database)
        report = campaign.run()
    unexpected = [found for found in report.finds if found.code != MEMORY and not _known(found, expected)]
    return plain([find_page(found, _WIDTH) for found in unexpected])


class _Loader:
    """Makes the bench of a subject by its name, in another process."""

    def __init__(self, target: str, case: object, select: tuple[str, ...]) -> None:
        self._target, self._case, self._select = target, case, select

    def __call__(self) -> Bench:
        return Bench(load_subject(self._target).but(case=self._case), self._select)


def _loadable(target: str, subject: Subject) -> bool:
    if ":" not in target and target != "tiny":
        return False
    return load_subject(target).but(case=subject.case) == subject


def _known(found: Find, expected: Mapping[str, Expected]) -> bool:
    entry = expected.get(found.code)
    return entry is not None and all(entry.match in finding.message for finding in found.findings)
