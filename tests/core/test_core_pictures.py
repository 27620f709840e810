"""Pictures: made without pyplot, written whole or not at all, and a missing matplotlib says what to install."""

import subprocess
import sys
from pathlib import Path

import pytest

from fmcheck.errors import DeclarationError
from fmcheck.pictures import figure, save

matplotlib = pytest.importorskip("matplotlib")

_PNG = b"\x89PNG\r\n\x1a\n"


def _drawn() -> object:
    made, axes = figure(4, 3)
    axes[0, 0].plot([0, 1], [0, 1])
    return made


def test_axes_are_a_table_whatever_their_number() -> None:
    assert figure(4, 3)[1].shape == (1, 1)
    assert figure(4, 3, 2, 3)[1].shape == (2, 3)


def test_a_figure_changes_no_setting_of_the_process_and_loads_no_pyplot(tmp_path: Path) -> None:
    code = (
        # Asking for the backend itself would choose one, and load pyplot.
        "import sys, matplotlib as m; seen = lambda: {k: m.rcParams[k] for k in m.rcParams if k != 'backend'}; "
        "before = seen(); from pathlib import Path; from fmcheck.pictures import figure, save; "
        "save(figure(2, 2)[0], Path(sys.argv[1])); "
        "assert seen() == before; assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.png")], check=True)


def test_a_picture_has_the_asked_size_in_pixels(tmp_path: Path) -> None:
    path = save(_drawn(), tmp_path / "new" / "a.png")
    data = path.read_bytes()
    assert data[:8] == _PNG
    # Width and height stand in the header, big endian: 4 and 3 inches of 150 dots.
    assert (int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")) == (600, 450)


def test_equal_figures_are_equal_files_and_nothing_else_is_left(tmp_path: Path) -> None:
    first, second = (save(_drawn(), tmp_path / name).read_bytes() for name in ("a.png", "b.png"))
    assert first == second
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(DeclarationError, match="cannot be written"):
        save(_drawn(), tmp_path / "out" / "a.png")


def test_a_missing_matplotlib_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(DeclarationError, match=r"pip install 'fmcheck\[plots\]'"):
        figure(4, 3)
