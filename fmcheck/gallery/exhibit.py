"""Pictures of a broken model beside those of the clean one: what they score, and which rule catches the defect."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fmcheck.case import Case
from fmcheck.gallery.entries import Entry
from fmcheck.gallery.golden import golden_case
from fmcheck.gallery.intervals import Estimate, estimated, paired
from fmcheck.judging import scores_of
from fmcheck.outcome import Finding
from fmcheck.rules import get_rule
from fmcheck.session import Session
from fmcheck.subject import Subject
from fmcheck.tensors import describe
from fmcheck.wish import Run, Wish

__all__ = ["Catch", "Exhibit", "Gallery", "gallery"]


@dataclass(frozen=True)
class Catch:
    """The rule that catches a defect in the native case, and its largest error over the bound.

    `ratio` is None for rules that hold exactly or not at all.
    """

    code: str
    name: str
    message: str
    ratio: float | None


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """One entry, made and judged.

    Attributes:
        scores: every score of the judge, by name, `[N]`; empty where there are no pictures to judge.
        trouble: why there are none: what was raised, or returned instead.
        picture: `[3, H, W]` float32 in [0, 1] of the pictured prompt; None where there is none.
        changed: share of the pictures that differ from the clean ones; None where there are none.
        caught: by the rule that the mutant names; None for the clean model, and for a rule that found nothing.
        lost: every score minus that of the clean model, paired by prompt; None for the clean model, and without scores.
    """

    entry: Entry
    scores: Mapping[str, list[float]]
    trouble: str = ""
    picture: Tensor | None = None
    changed: float | None = None
    caught: Catch | None = None
    lost: Mapping[str, Estimate] | None = None

    def estimate(self, name: str) -> Estimate | None:
        """Mean and 95% interval of one score; None without pictures."""
        return estimated(self.scores[name]) if name in self.scores else None

    def seen_by(self, name: str) -> bool | None:
        """Whether a score is lower than that of the clean model, by its 95% interval; None where there is none."""
        return None if self.lost is None else self.lost[name].high < 0


@dataclass(frozen=True)
class Gallery:
    """All entries, the case that they were made in, and the place of the prompt that is pictured."""

    case: Case
    exhibits: Sequence[Exhibit]
    shown: int

    @property
    def prompt(self) -> str:
        return self.case.prompts[self.shown]


def gallery(
    subject: Subject,
    chosen: Iterable[Entry],
    *,
    prompts: int,
    on_entry: Callable[[str], None] = lambda _: None,
    on_done: Callable[[], None] = lambda: None,
) -> Gallery:
    """Make, judge and compare the entries; the first is the clean model.

    Args:
        prompts: of the judge's, made in one batch from the same noise for every entry.
        on_entry, on_done: called with every entry's name before, and after it, for progress displays.

    Raises:
        DeclarationError: no judge, or fewer prompts.
    """
    case = golden_case(subject, prompts)
    made: list[Exhibit] = []
    originals: Tensor | None = None
    shown = 0
    for entry in chosen:
        on_entry(entry.label)
        broken = entry.mutant.change(subject) if entry.mutant else subject
        run = Session(broken.but(case=case)).run(Wish("gallery", case))
        exhibit, images = _judged(entry, run, originals)
        if not made:
            originals = images
            shown = _telling(exhibit)
        exhibit = replace(exhibit, picture=None if images is None else _shown(images[shown], subject))
        if entry.mutant:
            lost = {name: paired(values, made[0].scores[name]) for name, values in exhibit.scores.items()}
            exhibit = replace(exhibit, caught=_caught(broken, entry.mutant.caught_by), lost=lost or None)
        made.append(exhibit)
        on_done()
    return Gallery(case, made, shown)


def _judged(entry: Entry, run: Run, originals: Tensor | None) -> tuple[Exhibit, Tensor | None]:
    """The entry with its scores, and its pictures `[N, 3, H, W]`, if there are any."""
    case, judge, spec = run.case, run.subject.judge, run.subject.spec
    result = run.trace.result
    if run.failure or result is None or judge is None:
        return Exhibit(entry=entry, scores={}, trouble=run.failure or "returned no tensor"), None
    images = result.detach().to("cpu", torch.float32)
    if images.shape != (case.batch, spec.image_channels, case.height, case.width):
        return Exhibit(entry=entry, scores={}, trouble=f"returned {describe(result)} for {case.batch} prompts"), None
    seen = scores_of(judge, case.prompts, images.nan_to_num(spec.image_range[0]), spec.image_range)
    scores = {name: values.tolist() for name, values in seen.items()}
    changed = None
    if originals is not None:
        changed = float((images != originals).flatten(1).any(1).double().mean())
    return Exhibit(entry=entry, scores=scores, changed=changed), images


def _telling(clean: Exhibit) -> int:
    """The first prompt whose picture has everything right, so that what is wrong in the others is the defect's."""
    total = [sum(values) for values in zip(*clean.scores.values(), strict=True)]
    return total.index(max(total)) if total else 0


def _shown(image: Tensor, subject: Subject) -> Tensor:
    low, high = subject.spec.image_range
    return ((image.nan_to_num(low) - low) / (high - low)).clamp(0, 1)


def _caught(broken: Subject, code: str) -> Catch | None:
    findings = [finding for finding in _findings(broken, code) if finding.severity != "note"]
    if not findings:
        return None
    worst = max(findings, key=lambda finding: finding.ratio or 0.0)
    return Catch(worst.code, worst.name, worst.message, worst.ratio)


def _findings(broken: Subject, code: str) -> Iterator[Finding]:
    """What the rule says of the native case; where that shows nothing, of all its runs."""
    rule, session = get_rule(code), Session(broken)
    found = session.judge(rule, over=[session.plan.base]).findings if rule.wishes is None else ()
    yield from found or session.judge(rule).findings
