"""The rules, one module a family. Importing this package registers fmcheck's own.

What a rule of another package needs is importable from here: `rule`, `Check`; the comparisons `exact`, `within`,
`bitwise` and `measured`; the premises `require`, `given` and `require_finite`; `apart` and `by_step` for messages; and
`Plan`, `Run` and `Wish` for annotations. Such a package names its module in the entry point group `fmcheck.rules`.
"""

import importlib
import pkgutil

from fmcheck.plan import Plan, Run, Wish
from fmcheck.rules.evidence import apart, bitwise, by_step, exact, given, measured, require, require_finite, within
from fmcheck.rules.registry import (
    FAMILIES,
    Check,
    Rule,
    Severity,
    all_rules,
    family_title,
    get_rule,
    rule,
    select_rules,
    unasked,
)

__all__ = [
    "FAMILIES",
    "Check",
    "Plan",
    "Rule",
    "Run",
    "Severity",
    "Wish",
    "all_rules",
    "apart",
    "bitwise",
    "by_step",
    "exact",
    "family_title",
    "get_rule",
    "given",
    "measured",
    "require",
    "require_finite",
    "rule",
    "select_rules",
    "unasked",
    "within",
]

for _module in pkgutil.iter_modules(__path__):
    # A new family is a new file, found by its name; no list to keep in step.
    if _module.name.startswith("fm"):
        importlib.import_module(f"{__name__}.{_module.name}")
