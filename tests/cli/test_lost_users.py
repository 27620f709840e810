"""Messages for the lost: every mistake names the thing, what was found, and the next step."""

from collections.abc import Callable
from pathlib import Path

import pytest

HEAD = "import math\nimport toy\nfrom fmcheck import Case, Point\n"
LOST = {
    "build=lambda case: None": (2, "build returned None, expected the model; a missing return?"),
    "build=lambda case: math.sqrt('2')": (2, "build raised TypeError: must be real number, not str ("),
    "velocity='velocty'": (2, "Toy has no 'velocty'; did you mean 'velocity'?"),
    "decode='_backward_pre_hooks.x.decode'": (2, "observation point"),
    "velocity=Point('velocity', {'x': 'sample'})": (2, "it has no parameter 'sample'; it takes x, time, null"),
    "tokenize=lambda model, prompts: {}['ids']": (2, "tokenize raised KeyError: 'ids' ("),
    "tokenize=lambda model, prompts: [1]": (2, "must return a mapping of argument names to tensors"),
    "case=Case(prompts=())": (2, "expected at least one prompt"),
    "case=Case(prompts=('a',), height=17, width=24)": (2, "case size 17x24 is not divisible by 8"),
    "velocity='zero_grad'": (1, "generate() ran without calling 'zero_grad', the velocity point of the subject"),
    "generate=lambda model, request: None": (1, "let the subject's generate return a torch tensor"),
    "generate=lambda model, request: model.generate(request).numpy()": (1, "generate returned ndarray"),
}


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("mistake", LOST)
def test_a_mistake_is_answered_with_the_next_step(
    project: Path, fmcheck_command: Callable[..., tuple[int, str, str]], mistake: str, request: pytest.FixtureRequest
) -> None:
    expected, message = LOST[mistake]
    name = f"lost_{list(LOST).index(mistake)}"
    (project / f"{name}.py").write_text(f"{HEAD}\n\ndef subject():\n    return toy.subject.but({mistake})\n")
    code, out, err = fmcheck_command("run", f"{name}:subject", "--select", "FM300,FM701,FM702")
    text = " ".join((out + err).split())
    assert code == expected, text
    assert message in text
    assert "Traceback" not in text
