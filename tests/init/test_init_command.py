"""`fmcheck init` through the command line: the file runs, nothing is overwritten, exit codes."""

import shutil
import sys
from pathlib import Path

import pytest
import torch

from fmcheck import cli
from fmcheck.commands_init import load_file
from fmcheck.run import check

HERE = Path(__file__).parent


@pytest.fixture
def folder(tmp_path, monkeypatch):
    shutil.copy(HERE / "toy_init.py", tmp_path / "toy_init_model.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield tmp_path
    sys.modules.pop("toy_init_model", None)


@pytest.fixture
def command(folder, capsys, monkeypatch):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["fmcheck", "init", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as exit_:
            code = exit_.code or 0
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_a_subject_is_written_that_runs_without_a_finding(folder, command):
    code, out, _ = command("toy_init_model:build")
    assert code == 0
    assert "next: fmcheck run fmcheck_subject:subject" in out
    subject = load_file(folder / "fmcheck_subject.py")
    assert not [o for o in check(subject).outcomes if o.status == "failed"]
    spec = subject.spec
    assert (spec.time_argument, spec.grid, spec.evaluation_point, spec.prediction) == (
        "sigma",
        "uniform",
        "left",
        "velocity",
    )
    assert (spec.guidance_formula, spec.guidance_layout) == ("uncond_plus", "uncond_first")
    assert (spec.latent_channels, spec.downsampling, spec.latent_scale) == (3, 8, 0.5)
    assert (subject.points["velocity"].path, subject.points["decode"].path) == ("net", "decode")


def test_every_guess_stands_behind_its_evidence(folder, command):
    command("toy_init_model:build")
    lines = (folder / "fmcheck_subject.py").read_text().partition("spec=FlowSpec(")[2].splitlines()
    fields = [i for i, line in enumerate(lines) if line.startswith("        ") and "=" in line and "#" not in line]
    assert len(fields) > 10
    assert all(lines[i - 1].lstrip().startswith("#") for i in fields)


def test_nothing_is_overwritten(folder, command):
    mine = folder / "fmcheck_subject.py"
    mine.write_text("mine")
    code, _, err = command("toy_init_model:build")
    assert code == 2
    assert "fmcheck_subject.py" in err
    assert mine.read_text() == "mine"
    assert command("toy_init_model:build", "--output", "other.py")[0] == 0
    assert mine.read_text() == "mine"


def test_a_file_in_a_folder_below_is_named_by_its_package(folder, command):
    (folder / "checks").mkdir()
    code, out, _ = command("toy_init_model:build", "--output", "checks/mine.py")
    assert code == 0
    assert "next: fmcheck run checks.mine:subject" in out
    assert 'subject = "checks.mine:subject"' in out
    assert "fmcheck run checks.mine:subject" in (folder / "checks" / "mine.py").read_text()


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("nowhere/mine.py", "nowhere is no folder that can be written"),
        ("toy_init_model.py/mine.py", "toy_init_model.py is no folder that can be written"),
        ("../mine.py", "expected the name of a Python module in the current folder or below"),
        ("my-model.py", "expected the name of a Python module in the current folder or below"),
        ("mine.txt", "expected the name of a Python module in the current folder or below"),
    ],
)
def test_a_file_that_could_not_be_written_or_imported_is_refused(folder, command, output, said):
    code, _, err = command("toy_init_model:build", "--output", output)
    assert code == 2
    assert said in " ".join(err.split())
    assert not (folder / output).exists()


def test_the_table_goes_into_a_configuration_without_one(folder, command):
    path = folder / "pyproject.toml"
    path.write_text("# kept\n[project]\nname = 'x'\n")
    command("toy_init_model:build")
    text = path.read_text()
    assert "# kept" in text
    assert '[tool.fmcheck]\nsubject = "fmcheck_subject:subject"' in text
    command("toy_init_model:build", "--output", "other.py")
    assert path.read_text() == text


def test_without_a_configuration_the_table_is_printed(folder, command):
    _, out, _ = command("toy_init_model:build")
    assert "[tool.fmcheck]" in out
    assert not (folder / "pyproject.toml").exists()


def test_a_sampler_that_nobody_can_guess_is_asked_for(command):
    code, _, err = command("toy_init_model:bare")
    assert code == 2
    assert "--call" in err
    assert "--generate" in err
    assert "strangely" in err


@pytest.mark.parametrize(
    "option",
    [
        ("--generate", "toy_init_model:pictures"),
        ("--call", "model.strangely(prompts, ({num_steps}, {guidance_scale}, {generator}, {height}, {width}))"),
    ],
)
def test_it_can_be_told(folder, command, option):
    code, out, _ = command("toy_init_model:bare", *option)
    assert code == 0, out
    assert load_file(folder / "fmcheck_subject.py").points["velocity"].path == "inner.net"


@pytest.mark.parametrize(
    "target", ["nothing_here:build", "toy_init_model:biuld", "toy_init_model", "toy_init_model:Net.forward"]
)
def test_wrong_builders_are_usage_errors(command, target):
    code, _, err = command(target)
    assert code == 2
    assert "internal error" not in err


def test_random_state_and_model_are_left_alone(command):
    state = torch.random.get_rng_state()
    command("toy_init_model:build")
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.slow
def test_the_tiny_model(folder, command):
    code, _, _ = command("fmcheck.tiny:build")
    assert code == 0
    subject = load_file(folder / "fmcheck_subject.py")
    assert not [o for o in check(subject, select=("FM2", "FM3", "FM5", "FM6")).outcomes if o.status == "failed"]
    assert (subject.points["sample"].path, subject.points["decode"].path) == (
        "autoencoder.sample",
        "autoencoder.decode",
    )


def test_what_cannot_be_read_is_asked_for(folder, command):
    code, out, _ = command("toy_init_model:thrice")
    assert code == 1
    assert "missing: solver: 18 evaluations in 6 steps" in out
    text = (folder / "fmcheck_subject.py").read_text()
    assert "# TODO solver" in text
    assert "velocity=Point(" in text
    compile(text, "fmcheck_subject.py", "exec")
