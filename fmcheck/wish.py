"""A run that a rule wishes for, and the run that fulfils the wish."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from torch import Tensor

from fmcheck.case import Case
from fmcheck.errors import NotInformative
from fmcheck.ranks.share import Share
from fmcheck.record.disturb import Disturbance
from fmcheck.record.memo import Memo
from fmcheck.record.reading import Reading
from fmcheck.record.trace import Trace
from fmcheck.scenario import Tokens
from fmcheck.subject import Subject

__all__ = ["Run", "Wish"]


@dataclass(frozen=True)
class Wish:
    """One run that a rule wants. Wishes that differ only in their name share a run.

    Attributes:
        name: for reports.
        kind: `generate` or `loss`; on ranks also `part`, where each makes its part of the prompts, and `shard`, where
            each runs `generate` with a network that is spread over them.
        disturbances: deliberate changes at observation points.
        disturb_rng: seed the global generators with this number first.
        tokens: the subject's own tokens, `padded` further, or with other values under the mask (`masked`).
        after: runs that must have been made before this one, on the same model object.
        rotates_text_of: the text latent is that run's, its rows rotated by one, so that the noise follows its prompt.
        turn: tells repeated equal runs apart.
        ambient: settings of the process during the run, by their names in :mod:`fmcheck.record.ambient`.
        fresh: on a model object of its own, shared only by the other fresh runs.
        ranks: in so many processes of their own, in one process group; 0 in this process.
    """

    name: str = field(compare=False)
    case: Case
    kind: Literal["generate", "loss", "part", "shard"] = "generate"
    disturbances: tuple[Disturbance, ...] = ()
    disturb_rng: int | None = None
    tokens: Tokens = "plain"
    after: tuple["Wish", ...] = ()
    rotates_text_of: "Wish | None" = None
    turn: int = 0
    ambient: tuple[str, ...] = ()
    fresh: bool = False
    ranks: int = 0


@dataclass
class Run(Memo):
    """A wish fulfilled: the trace, and the reading of it; on ranks, the share of each."""

    wish: Wish
    subject: Subject
    trace: Trace
    shares: tuple[Share, ...] = ()

    @property
    def name(self) -> str:
        return self.wish.name

    @property
    def case(self) -> Case:
        return self.wish.case

    @cached_property
    def reading(self) -> Reading:
        """The trace as steps of a flow."""
        return Reading(self.trace, self.subject.spec)

    @property
    def result(self) -> Tensor:
        """The images that came out.

        Raises:
            NotInformative: the run raised, or returned no tensor.
        """
        if self.trace.result is None:
            raise NotInformative(f"run {self.name!r}: {self.failure or 'no tensor came out'}")
        return self.trace.result

    @property
    def failure(self) -> str | None:
        """The exception that ended the run, in one line; None when it came to its end."""
        failed = min((share for share in self.shares if share.error), key=lambda share: share.ended, default=None)
        if failed is not None:
            return f"rank {failed.rank} of {self.wish.ranks}: {failed.error}"
        error = self.trace.error
        if error is None:
            return None
        try:
            first_line = next(iter(str(error).splitlines()), "")
        except Exception:
            first_line = "(its own text raises)"
        return f"{self.wish.kind} raised {type(error).__name__}: {first_line[:200]}"
