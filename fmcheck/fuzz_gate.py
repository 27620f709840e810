"""From the words of a command line, or of a test, to a campaign: subject, rules, domain, limits, database."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from hypothesis.database import DirectoryBasedExampleDatabase

from fmcheck.fuzz import Campaign, Isolated, Limits, campaign_of
from fmcheck.gate import prepare
from fmcheck.repro.spool import Spool
from fmcheck.strategies import Domain
from fmcheck.trial import Bench

__all__ = ["Hunt"]


@dataclass(frozen=True, kw_only=True)
class Hunt:
    """Everything that a campaign by name is made of, as plain data that another process can be handed.

    Attributes:
        target: the subject's name, see :func:`fmcheck.subjects.load_subject`; None is the configured one.
        select, ignore, device, dtype: as for `fmcheck run`.
        domain: bounds of what is asked for.
        limits: where it ends; of each worker, when there are several.
        database: folder of Hypothesis' example database; None keeps no examples.
        spool: folder of the file that holds the case under way.
        example_seconds: time limit of one scenario.
    """

    target: str | None = None
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    device: str | None = None
    dtype: str | None = None
    domain: Domain = field(default_factory=Domain)
    limits: Limits = field(default_factory=Limits)
    database: Path | None = None
    spool: Path | None = None
    example_seconds: float = 60.0

    def bench(self) -> Bench:
        """The subject and its rules, loaded in this process.

        Raises:
            DeclarationError: a wrong configuration, subject or selection.
        """
        gate = prepare(self.target, select=self.select, ignore=self.ignore, device=self.device, dtype=self.dtype)
        return Bench(gate.subject, gate.select, gate.ignore)

    def campaign(self, number: int = 0) -> Campaign:
        """The campaign; `number` tells workers apart, each has a seed of its own. The caller closes its executor."""
        bench = self.bench()
        limits = replace(self.limits, seed=self.limits.seed + number)
        database = None if self.database is None else DirectoryBasedExampleDatabase(str(self.database))
        executor = Isolated(self.bench, time_limit=self.example_seconds)
        campaign = campaign_of(bench, executor, domain=self.domain, limits=limits, database=database)
        if self.spool is not None:
            spool = Spool(self.spool, self.target or bench.subject.name, bench.subject.case.device)
            campaign.before, campaign.after = spool.note, spool.done
        return campaign

    def shared(self, workers: int) -> "Hunt":
        """The hunt of one of several workers, which share the examples and not the time."""
        examples = self.limits.examples
        return replace(
            self, limits=replace(self.limits, examples=None if examples is None else -(-examples // workers))
        )
