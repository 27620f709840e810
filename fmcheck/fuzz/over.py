"""A campaign over all that a bench can be asked, and how soon one finds a rule broken."""

from hypothesis.database import ExampleDatabase

from fmcheck.fuzz.campaign import Campaign, Find, Limits
from fmcheck.fuzz.executor import Executor, Local
from fmcheck.strategies import Domain, scenarios
from fmcheck.trial import CRASH, HANG, MEMORY, Bench

__all__ = ["campaign_of", "examples_until"]


def campaign_of(
    bench: Bench,
    executor: Executor | None = None,
    *,
    domain: Domain | None = None,
    limits: Limits | None = None,
    database: ExampleDatabase | None = None,
) -> Campaign:
    """A campaign over the scenarios of a bench's subject, judged by its rules; by default in this process."""
    asks = [rule.code for rule in bench.rules if rule.wishes is not None and not (rule.costly or rule.on_ranks)]
    return Campaign(
        subject=bench.subject,
        executor=executor or Local(bench),
        strategy=scenarios(bench.subject, domain, asks=asks),
        limits=limits or Limits(),
        database=database,
        codes=[*(rule.code for rule in bench.rules), CRASH, HANG, MEMORY],
    )


class _Found(BaseException):
    """Ends a campaign; no Exception, which would be one of the subject's."""


def examples_until(code: str, campaign: Campaign) -> int | None:
    """Scenarios that a campaign runs until a rule fails in one; None when none does within its limits.

    The campaign ends there, and what it finds on the way is not shrunk.
    """
    found: list[int] = []

    def look(first: Find) -> None:
        if first.code == code:
            found.append(first.example)
            raise _Found

    campaign.on_first = look
    campaign.shrinks = False
    try:
        campaign.run()
    except _Found:
        return found[0]
    return None
