"""`fmcheck sweep`: how it is called, what it leaves, and its exit codes."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fmcheck.cli_sweep import numbers, size_of
from fmcheck.errors import DeclarationError

Command = Callable[..., tuple[int, str, str]]
pytestmark = pytest.mark.usefixtures("project")

QUICK = ("--num-steps", "2", "--seeds", "1", "--no-pictures", "--no-time")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--cfg-scale", "0", "2", "4.5", "--num-steps", "1", "2"),
        ("--num-steps", "1", "2", "--cfg-scale", "0", "2", "4.5", "toy:subject"),
        ("--cfg-scale", "0,2,4.5", "--num-steps=1,2"),
        ("--cfg-scale=0", "2", "--cfg-scale", "4.5", "--num-steps", "1", "--num-steps", "2"),
        ("--num-steps", "1 2", "--cfg-scale", "0 2 4.5"),
    ],
)
def test_several_values_may_follow_an_option_in_any_way(fmcheck_command: Command, arguments: tuple[str, ...]) -> None:
    subject = () if "toy:subject" in arguments else ("toy:subject",)
    rest = ("--seeds", "1", "--no-pictures", "--no-time", "--output-format", "json")
    code, out, err = fmcheck_command("sweep", *subject, *arguments, *rest)
    assert code == 0, err
    document = json.loads(out)
    assert (document["scales"], document["num_steps"]) == ([0.0, 2.0, 4.5], [1, 2])


def test_negative_scales_are_values_and_no_options(fmcheck_command: Command) -> None:
    code, out, err = fmcheck_command(
        "sweep", "toy:subject", "--cfg-scale", "-1", "0", "-0.5", *QUICK, "--output-format", "json"
    )
    assert code == 0, err
    assert json.loads(out)["scales"] == [-1.0, 0.0, -0.5]


def test_numbers_and_sizes_are_read_as_they_are_written() -> None:
    assert numbers("--cfg-scale", ["0, 2", "3 4.5"]) == [0.0, 2.0, 3.0, 4.5]
    assert numbers("--cfg-scale", None) is None
    assert numbers("--cfg-scale", [""]) == []
    assert size_of("256") == (256, 256)
    assert size_of("192x320") == (192, 320)
    assert size_of(None) is None
    with pytest.raises(DeclarationError, match="height x width as 192x320; found '192,320'"):
        size_of("192,320")


def test_a_sweep_leaves_numbers_and_pictures_and_a_second_call_makes_no_run(
    fmcheck_command: Command, project: Path
) -> None:
    pytest.importorskip("matplotlib")
    arguments = ("sweep", "toy:subject", "--cfg-scale", "0", "3", "--num-steps", "2", "--seeds", "1", "--out", "out")
    code, out, _ = fmcheck_command(*arguments, columns=80)
    assert code == 0
    assert "no recommendation: the subject has no judge" in out
    names = {path.name for path in (project / "out").iterdir()}
    pictures = {"grid-2.png", "measures.png", "latents.png"}
    # The toy's last state enters no observed function: those before it are drawn, and the reason is said.
    assert names == {"settings.json", "entries.jsonl", "images", "sweep.json"} | pictures
    assert "the state after the last step enters no observed function" in " ".join(out.split())
    assert json.loads((project / "out" / "sweep.json").read_text())["found_before"] == 0
    assert max(len(line) for line in out.splitlines()) <= 80
    code, out, _ = fmcheck_command(*arguments)
    assert code == 0
    assert "2 runs found in out" in " ".join(out.split())


def test_json_is_the_only_thing_on_stdout(fmcheck_command: Command, project: Path) -> None:
    code, out, _ = fmcheck_command("sweep", "toy:talking", "--cfg-scale", "0", *QUICK, "--output-format", "json")
    assert code == 0
    assert out == (project / "fmcheck-sweep" / "sweep.json").read_text()


def test_the_configured_subject_seed_and_prompts_are_taken(
    fmcheck_command: Command, configure: Callable[[str], Path], project: Path
) -> None:
    configure('subject = "toy:factory"\nseed = 7\n')
    (project / "prompts.txt").write_text("one\ntwo\nthree\n")
    code, out, err = fmcheck_command(
        "sweep", "--cfg-scale", "0", *QUICK, "--prompts", "prompts.txt", "--count", "2", "--size", "16x8",
        "--output-format", "json",
    )  # fmt: skip
    assert code == 0, err
    document = json.loads(out)
    assert document["subject"] == "toy:factory"
    assert document["prompts"] == ["one", "two"]
    assert document["seeds"][0]["generator"] == 7
    assert document["identity"]["size"] == [16, 8]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("toy:nothing",), "has no 'nothing'"),
        (("toy:crashing", *QUICK), "every run raised; generate raised ValueError: the state is nowhere"),
        (("toy:subject", "--cfg-scale", ""), "--cfg-scale: expected one value or more; found none"),
        (("toy:subject", "--cfg-scale", "2", "2"), "--cfg-scale: expected different values; found 2 more than once"),
        (("toy:subject", "--cfg-scale", "two"), "--cfg-scale: expected numbers, separated by blanks or commas"),
        (("toy:subject", "--cfg-scale", "nan"), "guidance_scale: expected a finite number"),
        (("toy:subject", "--cfg-scale"), "--cfg-scale"),
        (("toy:subject", "--num-steps", "8", "0"), "--num-steps: expected an integer of 1 or more; found 0"),
        (("toy:subject", "--num-steps", "2.5"), "--num-steps: expected whole numbers"),
        (("toy:subject", "--seeds", "0"), "--seeds: expected an integer of 1 or more; found 0"),
        (("toy:subject", "--size", "20"), "--size: expected multiples of 8"),
        (("toy:subject", "--size", "big"), "--size: expected pixels as 256"),
        (("toy:subject", "--prompts", "missing.txt"), "missing.txt: expected a UTF-8 text file"),
        (("toy:subject", "--prompts", "toy.py", "--count", "999"), "the file has no more prompts"),
        (("toy:subject", "--device", "nowhere"), "device"),
        (("toy:subject", "--dtype", "bfloat16", *QUICK), "dtype 'bfloat16'"),
        (("toy:subject", "--out", "toy.py", *QUICK), "--out toy.py: expected a folder; found a file"),
        (("toy:subject", "--out", ".", *QUICK), "expected a new or empty folder"),
    ],
)
def test_wrong_usage_is_2_and_says_what(fmcheck_command: Command, arguments: tuple[str, ...], said: str) -> None:
    code, out, err = fmcheck_command("sweep", *arguments)
    assert code == 2
    assert said in " ".join(err.split())
    assert out == ""


def test_an_empty_prompt_file_says_so(fmcheck_command: Command, project: Path) -> None:
    (project / "none.txt").write_text("\n")
    code, _, err = fmcheck_command("sweep", "toy:subject", "--prompts", "none.txt")
    assert (code, "the file is empty" in err) == (2, True)


def test_another_subject_in_the_same_folder_is_refused_until_fresh(fmcheck_command: Command) -> None:
    assert fmcheck_command("sweep", "toy:subject", "--cfg-scale", "0", *QUICK)[0] == 0
    code, _, err = fmcheck_command("sweep", "toy:factory", "--cfg-scale", "0", *QUICK)
    assert code == 2
    assert 'subject "toy:subject" there, "toy:factory" here' in " ".join(err.split())
    assert fmcheck_command("sweep", "toy:factory", "--cfg-scale", "0", *QUICK, "--fresh")[0] == 0


def test_an_interrupted_sweep_is_130_and_says_how_to_go_on(
    fmcheck_command: Command, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "stopped.py").write_text(
        "import toy\n"
        "def generate(model, request):\n"
        "    if request.guidance_scale == 3: raise KeyboardInterrupt\n"
        "    return model.generate(request)\n"
        "subject = toy.make('stopped', generate=generate)\n"
    )
    monkeypatch.delitem(sys.modules, "stopped", raising=False)
    code, out, err = fmcheck_command("sweep", "stopped:subject", "--cfg-scale", "0", "3", *QUICK)
    assert (code, out) == (130, "")
    assert "what is finished is in fmcheck-sweep" in err
    assert len((project / "fmcheck-sweep" / "entries.jsonl").read_text().splitlines()) == 1
    monkeypatch.delitem(sys.modules, "stopped", raising=False)


def test_without_matplotlib_nothing_is_run_and_the_way_out_is_named(
    fmcheck_command: Command, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    code, _, err = fmcheck_command("sweep", "toy:subject", "--num-steps", "2")
    assert code == 2
    assert "pip install 'fmcheck[plots]', or use --no-pictures" in " ".join(err.split())
    assert not (project / "fmcheck-sweep").exists()
