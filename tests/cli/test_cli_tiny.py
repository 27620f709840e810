"""`fmcheck tiny train`: what it writes and prints, and what it refuses."""

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from fmcheck.tiny import TinyConfig, build
from fmcheck.tiny.trained import load_trained
from fmcheck.tiny.training import Recipe, result, run

Command = Callable[..., tuple[int, str, str]]

SHORT = Recipe(
    autoencoder_steps=1, text_steps=1, velocity_steps=1, decoder_steps=1, pictures=2, crops=1, whole=1, text_batch=2
)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training of one step a stage, measured on two prompts at one scale."""
    monkeypatch.setattr(run, "Recipe", lambda: SHORT)
    monkeypatch.setattr(result, "PROMPTS", 2)
    monkeypatch.setattr(result, "SCALES", (0.0,))


@pytest.mark.usefixtures("short")
def test_weights_card_and_log_are_written(fmcheck_command: Command, tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    code, printed, err = fmcheck_command("tiny", "train", "--out", str(out), "--seed", "3")
    assert code == 0, err
    assert "psnr" in printed
    assert "cfg 0, full" in printed
    card = tomllib.loads((out / "card.toml").read_text())
    assert card["trained"]["seed"] == 3
    assert "--seed 3" in card["trained"]["command"]
    assert set(card["scores"]) >= {"psnr", "cfg 0, basic", "cfg 0, full"}
    assert (out / "train.jsonl").is_file()
    stages = [line.partition(":")[0] for line in err.splitlines() if "steps, loss" in line]
    assert stages == ["autoencoder", "text", "velocity", "decoder"], "without a terminal, a line for every stage"
    load_trained(build(config=TinyConfig()), out)


@pytest.mark.usefixtures("short")
def test_another_seed_in_the_same_folder_is_refused(fmcheck_command: Command, tmp_path: Path) -> None:
    assert fmcheck_command("tiny", "train", "--out", str(tmp_path))[0] == 0
    code, _, err = fmcheck_command("tiny", "train", "--out", str(tmp_path), "--seed", "1")
    assert code == 2
    assert "another training; give another folder" in " ".join(err.split())


def test_a_device_that_is_not_there(fmcheck_command: Command, tmp_path: Path) -> None:
    code, _, err = fmcheck_command("tiny", "train", "--out", str(tmp_path), "--device", "quantum")
    assert code == 2
    assert "--device quantum" in err
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_a_file(fmcheck_command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = fmcheck_command("tiny", "train", "--out", str(tmp_path / "file"))
    assert code == 2
    assert "expected a folder; found a file" in " ".join(err.split())
