"""The house rules, held by a test: imports point one way, rooms stay small, rules keep their shape."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "fmcheck"
MODULES = sorted(ROOT.rglob("*.py"))

# A module may import from lower floors and from its own.
FLOORS = [
    {"errors", "values", "files"},
    {"processes", "golden", "pictures"},
    {"judge"},
    {"tensors", "spec", "case"},
    {"subject", "scenario"},
    {"flow"},
    {"record"},
    {"drive"},
    {"wish", "ranks", "tolerance", "judging"},
    {"plan", "oracles", "parity"},
    {"rules"},
    {"outcome"},
    {"session"},
    {"trial", "strategies"},
    {"fuzz"},
    {"run"},
    {"power", "sweep", "plots"},
    {"subjects", "mutants", "config", "report"},
    {"experiment", "gallery"},
    {"repro"},
    {"gate", "init"},
    {"fuzz_gate"},
    {"fuzz_pytest"},
    {"pytest_suite", "pytest_repro"},
    {"commands"},
    {
        "commands_mutants",
        "commands_fuzz",
        "commands_exp",
        "commands_power",
        "commands_replay",
        "commands_sweep",
        "commands_tiny",
        "commands_train",
        "commands_init",
        "pytest_plugin",
    },
    {"cli_formats"},
    {"cli_exp", "cli_fuzz", "cli_power", "cli_replay", "cli_sweep", "cli_tiny"},
    {"cli"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def _room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("fmcheck."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {name.name.split(".")[1] for name in node.names if name.name.startswith("fmcheck.")}
    return found


@pytest.mark.parametrize("path", [p for p in MODULES if _room(p) != "__init__"], ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    room = _room(path)
    if room == "tiny":
        assert _imports(path) <= {"tiny"}, "the tiny model knows nothing of the checks"
        return
    for imported in _imports(path) - {"tiny"}:
        assert FLOOR[imported] <= FLOOR[room], f"{room} (floor {FLOOR[room]}) imports {imported} ({FLOOR[imported]})"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_rooms_are_small(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400, "split the module"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            body = [n for n in node.body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))]
            if body:
                lines = node.end_lineno - body[0].lineno + 1
                assert lines <= 50, f"{node.name} has {lines} lines"


def test_half_of_the_rooms_are_below_180_lines() -> None:
    sizes = sorted(len(path.read_text().splitlines()) for path in MODULES if path.name != "__init__.py")
    assert sizes[len(sizes) // 2] <= 180


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_annotations_stay_checkable_at_run_time(path: Path) -> None:
    assert "from __future__ import annotations" not in path.read_text()


RULE_MODULES = sorted((ROOT / "rules").glob("fm*.py"))


def _rule_functions(path: Path) -> list[ast.FunctionDef]:
    return [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
        and any(isinstance(d, ast.Call) and getattr(d.func, "id", "") == "rule" for d in node.decorator_list)
    ]


@pytest.mark.parametrize("path", RULE_MODULES, ids=lambda p: p.name)
def test_rules_never_leave_early_and_catch_nothing(path: Path) -> None:
    for function in _rule_functions(path):
        for node in ast.walk(function):
            assert not isinstance(node, ast.Return), f"{function.name} returns early, and would pass without looking"
            assert not isinstance(node, ast.Try), f"{function.name} catches exceptions"


@pytest.mark.parametrize("path", RULE_MODULES, ids=lambda p: p.name)
def test_rules_hold_no_bare_assert_and_no_literal_tolerance(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        assert not isinstance(node, ast.Assert), f"{path.name}:{node.lineno}: bare assert"
        if isinstance(node, ast.Call):
            names = {keyword.arg for keyword in node.keywords}
            assert not names & {"atol", "rtol"}, f"{path.name}:{node.lineno}: a tolerance belongs in tolerance.py"


@pytest.mark.parametrize("path", RULE_MODULES, ids=lambda p: p.name)
def test_rule_documentation_has_its_parts(path: Path) -> None:
    for function in _rule_functions(path):
        doc = ast.get_docstring(function) or ""
        for part in ("How it goes wrong:", "Checked:", "Fix:", "Source:"):
            assert part in doc, f"{function.name}: no {part!r} in its documentation"


def test_import_is_lazy_and_starts_nothing() -> None:
    """`import fmcheck` neither imports torch nor starts CUDA; the torch-heavy parts load on first use."""
    code = "import sys, fmcheck; assert 'torch' not in sys.modules; fmcheck.Case; import torch; "
    code += "assert not torch.cuda.is_initialized()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT.parent)


def test_public_surface_is_small() -> None:
    import fmcheck

    assert len(fmcheck.__all__) <= 12
    for name in fmcheck.__all__:
        assert getattr(fmcheck, name) is not None


def test_texts_do_not_name_private_places() -> None:
    for path in MODULES:
        assert not re.search(r"/(work|root|home)/", path.read_text()), path
