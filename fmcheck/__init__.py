"""fmcheck: shape-and-numerics verification for flow-matching text-to-image models."""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "Case",
    "Check",
    "Finding",
    "FlowSpec",
    "Point",
    "Report",
    "Request",
    "Subject",
    "check",
    "rule",
    "suite",
    "wrap",
]

if TYPE_CHECKING:
    from fmcheck.case import Case
    from fmcheck.outcome import Finding, Report
    from fmcheck.pytest_suite import suite
    from fmcheck.record.guard import wrap
    from fmcheck.rules.registry import Check, rule
    from fmcheck.run import check
    from fmcheck.spec import FlowSpec
    from fmcheck.subject import Point, Request, Subject

# Imported on first use: torch takes a second, and `fmcheck --help` and every pytest run that loads the plugin
# without using it should not wait for it.
_HOMES = {
    "Case": "fmcheck.case",
    "Check": "fmcheck.rules.registry",
    "Finding": "fmcheck.outcome",
    "FlowSpec": "fmcheck.spec",
    "Point": "fmcheck.subject",
    "Report": "fmcheck.outcome",
    "Request": "fmcheck.subject",
    "Subject": "fmcheck.subject",
    "check": "fmcheck.run",
    "rule": "fmcheck.rules.registry",
    "suite": "fmcheck.pytest_suite",
    "wrap": "fmcheck.record.guard",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fmcheck' has no attribute {name!r}; its public names are {', '.join(__all__)}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
