"""Several campaigns at once, each in a process of its own with another seed, as one."""

import multiprocessing
import queue
from collections.abc import Callable, Iterable
from typing import Any

from fmcheck.errors import InternalError
from fmcheck.fuzz.campaign import Campaign, Find, FuzzReport
from fmcheck.fuzz.coverage import Coverage

__all__ = ["merged", "run_workers"]

# A worker that has died sends nothing more; how often that is looked at, in seconds.
_PATIENCE = 0.5


def run_workers(
    make: Callable[[int], Campaign],
    count: int,
    *,
    on_example: Callable[[int], None],
    on_first: Callable[[Find], None],
    on_find: Callable[[Find], None],
) -> FuzzReport:
    """Run campaigns 0 to `count - 1` and put their reports together.

    Args:
        make: returns a campaign by its number; a function of a module (or a partial of one), since it runs in the
            process of that campaign.
        on_example, on_first, on_find: as in :class:`Campaign`, for all of them; a rule is announced once.

    Raises:
        DeclarationError, InternalError: what a campaign raised; the others are ended.
    """
    context = multiprocessing.get_context("spawn")
    events: Any = context.Queue()
    # Not daemons, which may have no children: each has a process for the model.
    processes = [context.Process(target=_work, args=(make, number, events)) for number in range(count)]
    reports: dict[int, FuzzReport] = {}
    examples: dict[int, int] = {}
    announced: set[tuple[str, str]] = set()
    try:
        for process in processes:
            process.start()
        while len(reports) < count:
            number, what, value = _next(events, processes, reports)
            if what == "error":
                raise value
            if what == "report":
                reports[number] = value
            elif what == "example":
                examples[number] = value
                on_example(sum(examples.values()))
            elif (what, value.code) not in announced:
                announced.add((what, value.code))
                (on_first if what == "first" else on_find)(value)
    finally:
        for process in processes:
            if process.pid is not None:
                process.terminate()
                process.join()
    return merged(reports[number] for number in sorted(reports))


def _next(events: Any, processes: list[Any], reports: dict[int, FuzzReport]) -> tuple[int, str, Any]:
    while True:
        try:
            event: tuple[int, str, Any] = events.get(timeout=_PATIENCE)
            return event
        except queue.Empty:
            for number, process in enumerate(processes):
                if number not in reports and not process.is_alive() and events.empty():
                    raise InternalError(f"campaign {number} ended with exit code {process.exitcode}") from None


def _work(make: Callable[[int], Campaign], number: int, events: Any) -> None:
    campaign = None
    try:
        campaign = make(number)
        campaign.on_example = lambda count: events.put((number, "example", count))
        campaign.on_first = lambda found: events.put((number, "first", found))
        campaign.on_find = lambda found: events.put((number, "find", found))
        events.put((number, "report", campaign.run()))
    except Exception as error:
        events.put((number, "error", error))
    finally:
        if campaign is not None:
            campaign.executor.close()


def merged(reports: Iterable[FuzzReport]) -> FuzzReport:
    """One report of several: the simplest find of every rule, everything else added up."""
    found = list(reports)
    finds: dict[str, Find] = {}
    coverage = Coverage()
    refused: dict[str, int] = {}
    for report in found:
        coverage.merge(report.coverage)
        for reason, count in report.refused.items():
            refused[reason] = refused.get(reason, 0) + count
        for find in report.finds:
            known = finds.get(find.code)
            if known is None or (not find.shrunk, find.scenario.cost) < (not known.shrunk, known.scenario.cost):
                finds[find.code] = find
    return FuzzReport(
        subject=found[0].subject,
        finds=tuple(finds[code] for code in sorted(finds)),
        examples=sum(report.examples for report in found),
        runs=sum(report.runs for report in found),
        coverage=coverage,
        refused=refused,
        unsteady=tuple(finding for report in found for finding in report.unsteady),
        seconds=max(report.seconds for report in found),
        broken=tuple(dict.fromkeys(text for report in found for text in report.broken)),
        interrupted=any(report.interrupted for report in found),
    )
