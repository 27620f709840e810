"""A throw-away project with a toy subject, throw-away rules with every outcome, and the command line in-process."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import fmcheck.commands_mutants
import fmcheck.gate  # noqa: F401  (imported before pytester takes its snapshot of sys.modules)
from fmcheck import Check, cli
from fmcheck.errors import NotInformative
from fmcheck.rules import registry

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# Installed as a distribution, the plugin is there already, and pytest refuses it a second time.
PLUGIN = [] if entry_points(group="pytest11", name="fmcheck") else ["-p", "fmcheck.pytest_plugin"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty project as the current directory, with the toy subject importable as `toy`."""
    shutil.copy(HERE / "toy_subject.py", tmp_path / "toy.py")
    (tmp_path / "pyproject.toml").write_text("[tool.fmcheck]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "toy", raising=False)
    yield tmp_path
    sys.modules.pop("toy", None)


@pytest.fixture
def configure(project: Path) -> Callable[[str], Path]:
    """Write the `[tool.fmcheck]` table of the project."""

    def write(text: str) -> Path:
        path = project / "pyproject.toml"
        path.write_text(f"[tool.fmcheck]\n{text}")
        return path

    return write


@pytest.fixture
def toy_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules TY001 to TY008, which end in every outcome; they go when the test ends."""
    monkeypatch.setattr(registry, "_RULES", dict(registry._RULES))

    def add(code: str, name: str, *checks: Check, needs: tuple[str, ...] = ("velocity",), fault: object = None) -> None:
        def judge(run: object) -> Iterator[Check]:
            if fault is not None:
                raise fault  # type: ignore[misc]
            yield from checks

        judge.__doc__ = f"The property of {name} holds.\n\nHow it goes wrong: by being {name}.\n\nFix: stop it."
        registry.rule(code, name, needs=needs)(judge)

    wrong = "came out 3.5, expected 2.5"
    add("TY001", "always-right", Check(holds=True, used=0.6, allowed=1.0))
    add("TY002", "always-wrong", Check(holds=False, message=wrong, where="step 1", used=1.0, allowed=0.5))
    add("TY003", "half-wrong", Check(holds=False, message="a little off", severity="warning"))
    add("TY004", "worth-a-note", Check(holds=False, message="by the way", severity="note"))
    add("TY005", "no-premise", fault=NotInformative("every velocity is zero"))
    add("TY006", "too-large", fault=MemoryError("no 3 TiB here"))
    add("TY007", "no-padding", Check(holds=True), needs=("pad",))
    add("TY008", "of-our-making", fault=KeyError("inner"))


@pytest.fixture
def fmcheck_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """`fmcheck ARGS` in-process: exit code, stdout, stderr."""

    def call(*arguments: str, columns: int = 100) -> tuple[int, str, str]:
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setattr(sys, "argv", ["fmcheck", *arguments])
        code: object = 0
        try:
            cli.main()
        except SystemExit as exit_:
            code = exit_.code or 0
        out, err = capsys.readouterr()
        assert isinstance(code, int)
        return code, out, err

    return call


@pytest.fixture
def environment() -> dict[str, str]:
    """For subprocesses: fmcheck importable, one thread."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in paths if p), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def shell(environment: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`fmcheck ARGS` as a process of its own."""

    def call(*arguments: str, code: str = "from fmcheck.cli import main; main()") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)

    return call


@pytest.fixture
def run_pytest(
    pytester: pytest.Pytester, project: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., pytest.RunResult]:
    """pytest in-process inside the project, with the plugin loaded."""
    shutil.copy(project / "toy.py", pytester.path / "toy.py")
    (pytester.path / "pyproject.toml").write_text("[tool.fmcheck]\n")
    monkeypatch.chdir(pytester.path)
    monkeypatch.setenv("COLUMNS", "100")

    def call(*arguments: str) -> pytest.RunResult:
        return pytester.runpytest_inprocess(*PLUGIN, "-p", "no:cacheprovider", *arguments)

    return call
