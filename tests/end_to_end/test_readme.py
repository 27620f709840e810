"""What the README claims, run as written."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fmcheck.mutants import all_mutants, all_variations
from fmcheck.rules import all_rules
from fmcheck.spec import FlowSpec

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()

MY_MODEL = '''
"""A model author's own package, for which the README's subject is written."""

from fmcheck import tiny


def build(device, dtype):
    return tiny.build(device, dtype)
'''


def _block(language: str, marker: str) -> str:
    blocks = re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)
    return next(block for block in blocks if marker in block)


def test_exactly_two_commands_do_all_the_set_up() -> None:
    commands = re.findall(r"```console\n(.*?)```", README, flags=re.DOTALL)
    assert len(commands) == 2
    assert all(command.startswith("$ python3 -m venv") and command.count("\n") == 1 for command in commands)
    assert commands[0].rstrip().endswith("fmcheck run")
    assert commands[1].rstrip().endswith("tox")


@pytest.fixture
def my_project(tmp_path: Path) -> Path:
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "__init__.py").touch()
    (tmp_path / "my_package" / "model.py").write_text(MY_MODEL)
    (tmp_path / "fmcheck_subject.py").write_text(_block("python", "# fmcheck_subject.py"))
    return tmp_path


def test_the_subject_of_the_readme_is_ten_lines() -> None:
    block = _block("python", "# fmcheck_subject.py")
    assert block[block.index("subject = ") :].count("\n") == 10


def test_the_subject_of_the_readme_is_checked_and_clean(my_project: Path) -> None:
    command = [sys.executable, "-m", "fmcheck.cli", "run", "fmcheck_subject:subject", "-v"]
    done = subprocess.run(command, cwd=my_project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" in done.stdout, "encode and loss are not declared, so some rules say that they could not look"


def test_the_pytest_suite_of_the_readme_runs_and_selects(my_project: Path) -> None:
    (my_project / "tests").mkdir()
    (my_project / "tests" / "test_sampler.py").write_text(_block("python", "fmcheck.suite(subject)"))
    command = [sys.executable, "-m", "pytest", "-q", "-k", "FM203", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(
        command, cwd=my_project, capture_output=True, text=True, check=False, env=_path_with(my_project)
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def _path_with(folder: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}


def test_every_field_of_the_spec_is_documented() -> None:
    table = README[README.index("## Conventions") : README.index("## The tiny model")]
    for field in dataclasses.fields(FlowSpec):
        assert f"`{field.name}`" in table, field.name


def test_counts_are_those_of_the_registries() -> None:
    text = " ".join(README.split())
    assert f"with {len(all_rules())} rules" in text
    assert f"plants {len(all_mutants())} deliberate defects" in text
    assert f"and {len(all_variations())} correct variations" in text
    assert f"{len(all_mutants(odd=True))} further ones show only in odd cases" in text


def test_the_measurements_of_the_readme_are_what_the_command_prints() -> None:
    block = _block("text", "measured")
    codes = re.findall(r"`fmcheck run tiny --select\s(FM208,\S+)`", README)[0]
    done = _fmcheck("run", "tiny", "--select", codes)
    assert done.returncode == 0
    # Lost bits depend on the kernels' last digits.
    stable = [line for line in block.splitlines() if "of 24 bits" not in line]
    assert [line for line in stable if line not in done.stdout.splitlines()] == []


def _fmcheck(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fmcheck.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "100"},
    )


def test_the_failure_of_the_readme_is_what_the_command_prints() -> None:
    block = _block("text", "FM203 wrong-guidance")
    command = re.findall(r"`fmcheck (run mutant:\S+ --select FM203)`", README)[0].split()
    done = _fmcheck(*command)
    assert done.returncode == 1
    # The size of the error is the same everywhere; how much rounding allows depends on the kernels' last digits.
    stable = [line for line in block.splitlines() if "times the bound" not in line]
    assert [line for line in stable if line not in done.stdout.splitlines()] == []
