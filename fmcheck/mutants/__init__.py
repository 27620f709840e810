"""Deliberate defects of the tiny model, each naming the rule that must catch it, and correct variations of it.

Importing this package registers them all.
"""

import importlib
import pkgutil

from fmcheck.mutants.registry import (
    Mutant,
    Variation,
    all_mutants,
    all_variations,
    get_mutant,
    get_variation,
    mutant,
    subject_mutant,
    variation,
)
from fmcheck.mutants.table import Kill, kill_table

__all__ = [
    "Kill",
    "Mutant",
    "Variation",
    "all_mutants",
    "all_variations",
    "get_mutant",
    "get_variation",
    "kill_table",
    "mutant",
    "subject_mutant",
    "variation",
]

# Alphabetical order puts m0, the development log, first; a new family is a new file, found by its name.
for _module in sorted(module.name for module in pkgutil.iter_modules(__path__)):
    importlib.import_module(f"{__name__}.{_module}")
