"""What a report says besides the outcomes: the subject, its native case, the machine, and how to run one rule again."""

import platform
import shlex
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch

from fmcheck import __version__
from fmcheck.case import Case
from fmcheck.errors import ForeignRuleError
from fmcheck.plan import Plan, Wish
from fmcheck.rules import Rule
from fmcheck.rules.blame import wished
from fmcheck.subject import Subject

__all__ = ["Context", "cases_of", "rerun_command", "versions"]

# Longer ones, such as a scale a channel, are told by their length.
_SHORTEST_VECTOR = 4
_SHORT = {"float32": "f32", "bfloat16": "bf16", "float16": "f16", "float64": "f64"}


@dataclass(frozen=True, kw_only=True)
class Context:
    """The frame of a report.

    Attributes:
        target: the subject as the user named it.
        subject: after the command line and the configuration changed its case and spec.
        rerun: the command that repeats one rule, with `{code}` where the rule's code goes.
        cases: the case of every run that a selected rule may wish for, by the name of the run.
        remarks: lines for the header.
    """

    target: str
    subject: Subject
    rerun: str
    cases: Mapping[str, Case] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def case(self) -> Case:
        return self.subject.case

    def conventions(self, rule: Rule) -> str:
        """What the spec says of the conventions that a rule goes by: one of them may be declared wrong."""
        spec = self.subject.spec
        said = ", ".join(f"{name} = {_short(getattr(spec, name))}" for name in rule.conventions)
        return f"{said}; if your code follows another convention, declare it"

    def shapes(self, case: Case | None) -> str:
        """The case in one line of shapes; the native case for a finding about several runs."""
        case = case or self.case
        spec = self.subject.spec
        channels, *cells = spec.latent_size(case.height, case.width)
        frames = [] if spec.latent_frames is None else [spec.latent_frames]
        latent = ",".join(map(str, (case.batch, channels, *frames, *cells)))
        return (
            f"latent {_SHORT[case.dtype]}[{latent}]  image {case.height}x{case.width}  steps {case.num_steps}  "
            f"guidance {case.guidance_scale:g}  {case.device}"
        )

    def rerun_of(self, code: str) -> str:
        """The command that repeats one rule."""
        return self.rerun.replace("{code}", code)


def rerun_command(target: str, case: Case, native: Case, *, nproc: int = 1) -> str:
    """`fmcheck run TARGET --select {code} --seed 0`, with device and dtype where they are not the subject's own."""
    words = ["fmcheck run", shlex.quote(target), "--select {code}", f"--seed {case.seed}"]
    if case.device != native.device:
        words.append(f"--device {case.device}")
    if case.dtype != native.dtype:
        words.append(f"--dtype {case.dtype}")
    if nproc > 1:
        words.append(f"--nproc {nproc}")
    return " ".join(words)


def cases_of(subject: Subject, rules: Iterable[Rule]) -> dict[str, Case]:
    """The case of every run that the rules may wish for, by the name of the run. Makes no run."""
    plan = Plan(subject)
    cases: dict[str, Case] = {}

    def note(wish: Wish) -> None:
        cases.setdefault(wish.name, wish.case)
        for earlier in wish.after:
            note(earlier)

    for wish in (*plan.plain, plan.loss):
        note(wish)
    for rule in rules:
        # A rule of another package may break here already; it is reported where it is judged.
        with suppress(ForeignRuleError):
            for wish in wished(rule, rule.wishes, plan).values():
                note(wish)
    return cases


def versions(device: str) -> dict[str, str]:
    """Versions and machine, for headers: the numbers of a report are comparable only where these are equal."""
    found = torch.device(device)
    name = torch.cuda.get_device_name(found) if found.type == "cuda" else (platform.processor() or platform.machine())
    return {
        "fmcheck": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": f"{device} ({name})",
        "threads": str(torch.get_num_threads()),
    }


def _short(value: Any) -> str:
    """A field of the spec in a few characters: vectors by their length."""
    if isinstance(value, tuple) and len(value) > _SHORTEST_VECTOR:
        return f"({len(value)} numbers)"
    return f"{value:g}" if isinstance(value, float) else str(value)
