"""The throw-away project of the command line's tests, with the faulty toys importable as `toy_fuzz`."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import threads
from tests.cli.conftest import configure, environment, fmcheck_command, run_pytest, shell  # noqa: F401
from tests.cli.conftest import project as _project  # noqa: F401

HERE = Path(__file__).parent


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    with threads.one_thread():
        yield


@pytest.fixture
def project(_project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:  # noqa: F811
    """An empty project as the current directory, with `toy` and `toy_fuzz`."""
    shutil.copy(HERE / "toy_fuzz_subject.py", _project / "toy_fuzz.py")
    monkeypatch.delitem(sys.modules, "toy_fuzz", raising=False)
    # Processes that the campaign spawns, too.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield _project
    sys.modules.pop("toy_fuzz", None)
