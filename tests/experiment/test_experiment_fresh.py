"""A new header: what git and the machine say, and what is left to fill in."""

import os
import subprocess
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from fmcheck.errors import DeclarationError
from fmcheck.experiment import branch_commit, draft_lines, hardware, new_exp_id, parse_header, problems
from fmcheck.experiment import fresh as fresh_module

DAY = date(2025, 9, 3)
GIVEN = {
    "title": "five times the rate",
    "purpose": "find the largest stable rate",
    "key_diffs": ["lr=5e-4", "warmup=2000"],
    "dataset": "24M t2i",
    "core_params": "lr=5e-4, batch=2048",
}


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """git in a folder of its own, which knows nothing of the machine's settings or of a surrounding repository."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "a")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "a@example.org")

    def call(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout.strip()

    return call


class TestGit:
    def test_states(self, git: Callable[..., str], tmp_path: Path) -> None:
        assert branch_commit(tmp_path) == ""
        git("init", "-b", "topic/lr")
        assert branch_commit(tmp_path) == "", "no commit yet"
        (tmp_path / "a").write_text("1")
        git("add", "a")
        git("commit", "-m", "first")
        commit = git("rev-parse", "--short", "HEAD")
        (tmp_path / "untracked").touch()
        assert branch_commit(tmp_path) == f"topic/lr / {commit}"
        (tmp_path / "a").write_text("2")
        assert branch_commit(tmp_path) == f"topic/lr / {commit} (dirty)"
        git("checkout", "--detach")
        assert branch_commit(tmp_path) == f"detached / {commit} (dirty)"

    def test_no_git(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert branch_commit(tmp_path) == ""

    def test_no_folder(self, tmp_path: Path) -> None:
        assert branch_commit(tmp_path / "none") == ""

    def test_silence_is_not_a_clean_state(self, monkeypatch: pytest.MonkeyPatch) -> None:
        answers = {"--abbrev-ref": "main", "--short": "abc1234"}
        monkeypatch.setattr(fresh_module, "_git", lambda folder, *arguments: answers.get(arguments[1]))
        assert branch_commit() == "main / abc1234 (state unknown)"


class TestHardware:
    def test_cpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
        assert "CPU core" in hardware()
        assert hardware()[0].isdigit()

    def test_gpus_by_name_and_number(self, monkeypatch: pytest.MonkeyPatch) -> None:
        names = ["NVIDIA A100", "NVIDIA H100", "NVIDIA A100"]
        monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
        monkeypatch.setattr("torch.cuda.get_device_name", lambda place: names[place])
        assert hardware().startswith("NVIDIA A100 x2, NVIDIA H100 x1, ")

    def test_a_driver_that_does_not_answer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(place: int) -> str:
            raise RuntimeError("no driver")

        monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
        monkeypatch.setattr("torch.cuda.get_device_name", fail)
        assert "CPU core" in hardware()


class TestDraft:
    def test_filled(self, git: Callable[..., str], tmp_path: Path) -> None:
        lines = draft_lines(GIVEN, suffix="B2", today=DAY, folder=tmp_path)
        header = parse_header("\n".join(lines))
        assert header.exp_id == "exp_20250903_B2"
        assert header.key_diffs == ("lr=5e-4", "warmup=2000")
        assert header.hardware == hardware()
        assert header.branch_commit == ""
        assert header.as_lines() == lines

    def test_what_is_not_given_is_left_to_fill_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fresh_module, "branch_commit", lambda folder: "main / abc1234")
        lines = draft_lines(today=DAY)
        assert "# BRANCH/COMMIT: main / abc1234" in lines
        left = problems("\n".join(lines))
        assert [message.partition(":")[0] for _, message in left] == [
            "TITLE",
            "PURPOSE",
            "KEY_DIFFS",
            "DATASET",
            "CORE PARAMS",
        ]
        assert all("expected a value of your own" in message for _, message in left)

    def test_the_machine_is_not_asked_for_what_is_given(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fresh_module, "_gpus", pytest.fail)
        monkeypatch.setattr(fresh_module, "_git", pytest.fail)
        given = {**GIVEN, "hardware": "A100x64", "branch_commit": "main / abc1234"}
        assert parse_header("\n".join(draft_lines(given))).hardware == "A100x64"

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"key_diffs": ["a"]}, "KEY_DIFFS: expected 2 to 4 knobs"),
            ({"tags": ["a, b"]}, "TAGS: expected entries that can be told apart"),
            ({"title": "short one-liner"}, "TITLE: expected a value of your own"),
            ({"titel": "a"}, "unknown field 'titel'; did you mean 'title'?"),
        ],
    )
    def test_refused(self, given: dict[str, str], message: str) -> None:
        with pytest.raises(DeclarationError) as caught:
            draft_lines({"hardware": "A100x64", **given})
        assert message in str(caught.value)

    def test_ids(self) -> None:
        assert new_exp_id("C", DAY) == "exp_20250903_C"
        with pytest.raises(DeclarationError, match="EXP_ID: expected exp_<yyyymmdd>_<x>"):
            draft_lines({"hardware": "A100x64"}, suffix="a b")
