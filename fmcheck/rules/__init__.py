"""The rules, one module a family. Importing this package registers them all."""

import importlib
import pkgutil

from fmcheck.rules.registry import FAMILIES, Check, Rule, Severity, all_rules, get_rule, rule, select_rules, unasked

__all__ = ["FAMILIES", "Check", "Rule", "Severity", "all_rules", "get_rule", "rule", "select_rules", "unasked"]

for _module in pkgutil.iter_modules(__path__):
    # A new family is a new file, found by its name; no list to keep in step.
    if _module.name.startswith("fm"):
        importlib.import_module(f"{__name__}.{_module.name}")
