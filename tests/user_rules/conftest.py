"""The example package of rules, installed offline: its module and the metadata that an installer would write."""

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent / "example"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def installed(tmp_path: Path) -> Callable[[str], Path]:
    """`installed(source)`: a folder in which a package `my-rules` with that source is installed."""

    def install(source: str) -> Path:
        site = tmp_path / "site"
        project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
        info = site / f"my_rules-{project['version']}.dist-info"
        info.mkdir(parents=True)
        (site / "my_rules.py").write_text(source)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 1.0\n")
        groups = project["entry-points"].items()
        lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in names.items()) for group, names in groups]
        (info / "entry_points.txt").write_text("".join(lines))
        return site

    return install


@pytest.fixture
def shell(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`shell(site, *arguments, module="fmcheck.cli")` in an empty project, with the package installed."""

    def call(site: Path, *arguments: str, module: str = "fmcheck.cli") -> subprocess.CompletedProcess[str]:
        paths = os.pathsep.join([str(site), str(ROOT)])
        environment = {**os.environ, "PYTHONPATH": paths, "COLUMNS": "120", "OMP_NUM_THREADS": "1"}
        (tmp_path / "pyproject.toml").write_text("[tool.fmcheck]\n")
        command = [sys.executable, "-m", module, *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=300, check=False
        )

    return call
