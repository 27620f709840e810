"""Rules of other packages, found through an entry point group and imported once, when rules are first asked for.

[project.entry-points."fmcheck.rules"]
my_rules = "my_package.my_rules"
"""

from importlib.metadata import EntryPoint, entry_points

from fmcheck.errors import DeclarationError

__all__ = ["GROUP", "discover", "package_of"]

GROUP = "fmcheck.rules"

# By top-level module: the distribution that brought it.
_distributions: dict[str, str] = {}


class _Discovery:
    """Whether the entry points were imported, and what came of it."""

    begun = False
    error: DeclarationError | None = None


def discover() -> None:
    """Import the module of every entry point of the group, once a process; it registers its rules by itself.

    Raises:
        DeclarationError: a module cannot be imported, or registers a rule that is none; at every call, since a gate
            without those rules would be another gate.
    """
    if not _Discovery.begun:
        # Before the first import: a module that asks for the rules while it registers its own gets those there are.
        _Discovery.begun = True
        try:
            for entry in sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)):
                _load(entry)
        except DeclarationError as error:
            _Discovery.error = error
    if _Discovery.error is not None:
        raise _Discovery.error.with_traceback(None)


def _load(entry: EntryPoint) -> None:
    name = entry.dist.name if entry.dist else entry.module.partition(".")[0]
    _distributions[entry.module.partition(".")[0]] = name
    try:
        entry.load()
    # A module that leaves with sys.exit would end the gate without a verdict.
    except (Exception, SystemExit) as error:
        said = str(error) if isinstance(error, DeclarationError) else f"{type(error).__name__}: {error}"
        raise DeclarationError(
            f"the rules of package {name!r} (entry point {entry.name} = {entry.value!r} of group {GROUP}) cannot be "
            f"imported: {said}{_line_of(error, entry)}; fix that package, or take it out with: pip uninstall {name}"
        ) from error


def _line_of(error: BaseException, entry: EntryPoint) -> str:
    """` (my_rules.py:12)`: the last line of the entry point's own package that the error passed."""
    found, trace, root = "", error.__traceback__, entry.module.partition(".")[0]
    while trace is not None:
        if str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0] == root:
            found = f" ({trace.tb_frame.f_code.co_filename}:{trace.tb_lineno})"
        trace = trace.tb_next
    return found


def package_of(module: str) -> str:
    """The package of a rule's module: its distribution, else its top-level name; empty for fmcheck's own."""
    top = module.partition(".")[0]
    return "" if top == "fmcheck" else _distributions.get(top, top)
