"""All pictures of a session: which are made, where they lie, and why others are not."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fmcheck.errors import DeclarationError, NotInformative
from fmcheck.files import require_folder
from fmcheck.outcome import Finding, Outcome, Report
from fmcheck.pictures import require, save, style
from fmcheck.plan import Run
from fmcheck.plots.canvas import caption
from fmcheck.plots.decoded import decoded_states
from fmcheck.plots.draw_finding import draw_finding
from fmcheck.plots.draw_states import draw_decoded, draw_state_sizes
from fmcheck.plots.draw_times import draw_time_grid, draw_told
from fmcheck.plots.draw_velocities import draw_velocities
from fmcheck.plots.finding import finding_page
from fmcheck.plots.states import state_sizes
from fmcheck.plots.times import quantile_curve, steps_of, told_of
from fmcheck.plots.velocities import velocities_of
from fmcheck.session import Session

__all__ = ["Picture", "album", "folder_for_pictures"]

_FINDINGS = 12


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture that was written (`path`), or was not (`reason`)."""

    name: str
    path: Path | None = None
    reason: str = ""

    def __str__(self) -> str:
        return f"picture {self.path}" if self.path is not None else f"no picture {self.name}: {self.reason}"

    def table(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"name": self.name, "path": None if self.path is None else str(self.path), "reason": self.reason}


def folder_for_pictures(folder: Path) -> Path:
    """The folder, made where it is missing. Asked for before any run is made.

    Raises:
        DeclarationError: matplotlib is not installed, or nothing can be written there.
    """
    require()
    return require_folder("--plots", folder)


def album(session: Session, report: Report, folder: Path) -> list[Picture]:
    """Draw the native run of a session that has judged its rules, and the first finding of every rule.

    The native run is the session's own. Pictures that cannot be made are named with the reason; none of it changes a
    verdict.
    """
    made: list[Picture] = []
    try:
        run = session.run(session.plan.base)
    except (NotInformative, MemoryError, DeclarationError) as error:
        run, why = None, f"there is no native run: {error or 'out of memory'}"
    if run is None:
        made += [Picture(name=name, reason=why) for name in _names(session)]
    else:
        made += [_written(folder, name, draw) for name, draw in _of_run(session, run)]
    failed = [outcome for outcome in report.outcomes if outcome.status != "expected" and _shown(outcome)]
    failed.sort(key=lambda outcome: _shown(outcome)[0].severity != "error")
    for outcome in failed[:_FINDINGS]:
        made.append(_written(folder, _name_of(outcome), partial(_finding, session, outcome)))
    for outcome in failed[_FINDINGS:]:
        made.append(
            Picture(name=_name_of(outcome), reason=f"{_FINDINGS} of {len(failed)} rules with findings are drawn")
        )
    return made + _left_over(folder, made, report)


def _names(session: Session) -> list[str]:
    argument = session.subject.spec.time_argument
    return ["time_grid.png", f"{argument}.png", "state_norm.png", "decoded_states.png", "velocities.png"]


def _of_run(session: Session, run: Run) -> Iterator[tuple[str, Callable[[], Any]]]:
    under, spec = caption(run), run.subject.spec
    grid, argument, norm, decoded, velocities = _names(session)
    yield (
        grid,
        lambda: draw_time_grid(
            steps_of(run),
            told_of(run),
            quantile_curve(spec),
            f"Time grid against the declared one, grid = {spec.grid}",
            under,
        ),
    )
    yield argument, lambda: draw_told(told_of(run), f"{spec.time_argument} as the network is told", under)
    yield norm, lambda: draw_state_sizes(state_sizes(run), "Size of the state on its way to the data", under)
    yield decoded, lambda: _decoded(session, run)
    yield velocities, lambda: draw_velocities(velocities_of(run), "Velocities and guidance", under)


def _decoded(session: Session, run: Run) -> Any:
    found = decoded_states(session, run)
    title = "States decoded by the subject's own functions"
    return draw_decoded(found, f"{title} ({found.remark})" if found.remark else title, caption(run))


def _shown(outcome: Outcome) -> list[Finding]:
    return [finding for finding in outcome.findings if finding.severity != "note"]


def _name_of(outcome: Outcome) -> str:
    return f"finding-{outcome.rule.code}.png"


def _finding(session: Session, outcome: Outcome) -> Any:
    return draw_finding(finding_page(session, outcome.rule, _shown(outcome)))


def _written(folder: Path, name: str, draw: Callable[[], Any]) -> Picture:
    try:
        with style():
            return Picture(name=name, path=save(draw(), folder / name))
    except (NotInformative, DeclarationError) as reason:
        return Picture(name=name, reason=str(reason))
    except (MemoryError, torch.OutOfMemoryError) as error:
        return Picture(name=name, reason=f"out of memory {error}".rstrip())
    except Exception as error:
        # The verdicts stand, whatever becomes of a picture.
        return Picture(name=name, reason=f"fmcheck broke, please report it: {type(error).__name__}: {error}")


def _left_over(folder: Path, made: list[Picture], report: Report) -> list[Picture]:
    """Pictures of earlier runs, which would be taken for those of this one. They may be wanted, so they stay."""
    written = {picture.name for picture in made if picture.path is not None}
    known = {f"finding-{outcome.rule.code}.png" for outcome in report.outcomes} | {picture.name for picture in made}
    old = sorted(path.name for path in folder.glob("*.png") if path.name in known - written)
    return [
        Picture(name=name, reason="an earlier picture of this name is still there, not of this run") for name in old
    ]
