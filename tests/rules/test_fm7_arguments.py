"""FM708 on toys with a dead argument each, and the other values it tries."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from fmcheck.plan import Run
from fmcheck.rules.fm7_arguments import alternatives
from fmcheck.run import Session
from fmcheck.subject import Request
from tests.rules.toy import CASE, Toy, judge, toy_subject


def base_run(**inputs: Any) -> Run:
    """A base run whose entry was (as far as its trace says) passed these arguments."""
    made = Session(toy_subject())
    run = made.run(made.plan.base)
    entry = run.trace.of("generate")[0]
    run.trace.calls[run.trace.calls.index(entry)] = replace(entry, inputs=inputs)
    return run


class StepsFixed(Toy):
    def edges(self, num_steps: int) -> Tensor:
        return super().edges(4)


class ScaleFixed(Toy):
    def velocity_at(self, x: Tensor, t: Tensor, scale: float) -> Tensor:
        return super().velocity_at(x, t, 2.5)


class WithEntry(Toy):
    """A toy with another public function; `entry` passes on what it is told to."""

    def entry(self, **given: Any) -> Any:
        raise NotImplementedError


class MaskDropped(WithEntry):
    def entry(self, **given: Any) -> Any:
        return self.generate(**{**given, "attention_mask": torch.ones_like(given["attention_mask"])})


class PromptsDropped(WithEntry):
    def entry(self, **given: Any) -> Any:
        return self.generate(**{**given, "input_ids": torch.ones_like(given["input_ids"])})


class GeneratorDropped(WithEntry):
    def entry(self, **given: Any) -> Any:
        return self.generate(**{**given, "generator": torch.Generator().manual_seed(0)})


class SizeDropped(WithEntry):
    def entry(self, **given: Any) -> Any:
        return self.generate(**{**given, "height": 64, "width": 64})


class Extras(WithEntry):
    def entry(self, tiling: bool, cutoff: float, callback: Any, style: str, strict: bool, **given: Any) -> Any:
        if strict:
            raise ValueError("strict: not with these prompts")
        return self.generate(**given)


def drive(model: WithEntry, request: Request) -> Tensor:
    return model.entry(  # type: ignore[no-any-return]
        **request.inputs,
        scale=request.guidance_scale,
        num_steps=request.num_steps,
        generator=request.generator,
        height=request.height,
        width=request.width,
    )


def drive_with_extras(model: Extras, request: Request) -> Any:
    return model.entry(
        tiling=False,
        cutoff=0.1,
        callback=None,
        style="plain",
        strict=False,
        **request.inputs,
        scale=request.guidance_scale,
        num_steps=request.num_steps,
        generator=request.generator,
        height=request.height,
        width=request.width,
    )


DEAD = [
    (StepsFixed, "num_steps", "4 against 5"),
    (ScaleFixed, "scale", "2.5 against 4.25"),
    (MaskDropped, "attention_mask", "the last word of every row masked out, against as it was,"),
    (PromptsDropped, "input_ids", "the rows rotated, against as it was,"),
    (GeneratorDropped, "generator", "a generator seeded 0 against one seeded 1"),
]


@pytest.mark.parametrize(("model", "name", "change"), DEAD, ids=[name for _, name, _ in DEAD])
def test_a_dead_argument_is_named(model: type[Toy], name: str, change: str) -> None:
    driven = {"entry": "entry", "generate": drive} if issubclass(model, WithEntry) else {}
    findings = judge("FM708", model, **driven).findings
    assert [f.message for f in findings] == [
        f"argument {name!r} is dead: {change} gives the same pictures, bit for bit"
    ]
    assert findings[0].severity == "error"
    assert findings[0].where == f"run argument-{name}"


def test_dead_sizes_are_both_named() -> None:
    findings = judge("FM708", SizeDropped, entry="entry", generate=drive).findings
    assert ["64 against 72 pixels" in f.message for f in findings] == [True, True]


def test_unknown_numbers_and_flags_are_warnings_and_the_rest_is_listed() -> None:
    outcome = judge("FM708", Extras, entry="entry", generate=drive_with_extras)
    assert outcome.status == "passed"
    assert {f.message.split()[1]: f.severity for f in outcome.findings} == {
        "'tiling'": "warning",
        "'cutoff'": "warning",
    }
    assert outcome.notes == ("argument 'callback' was not tested", "argument 'style' was not tested")
    assert outcome.checks == 7 + 3, "the seven of the toy, and the three of its extras that have another value"


def test_an_exception_is_an_answer() -> None:
    outcome = judge("FM708", Extras, entry="entry", generate=drive_with_extras)
    assert not any("strict" in f.message for f in outcome.findings)


def test_a_batch_of_one_rotates_its_tokens() -> None:
    one = CASE.with_batch(1)
    assert judge("FM708", case=one).status == "passed"
    findings = judge("FM708", PromptsDropped, case=one, entry="entry", generate=drive).findings
    assert "'input_ids'" in findings[0].message


def test_without_an_entry_the_rule_is_skipped() -> None:
    outcome = judge("FM708", entry=None)
    assert (outcome.status, outcome.reason) == ("skipped", "the subject declares no 'entry'")


def test_a_base_run_that_raised_says_nothing() -> None:
    class Broken(Toy):
        def edges(self, num_steps: int) -> Tensor:
            raise RuntimeError("no grid")

    outcome = judge("FM708", Broken)
    assert outcome.status == "not informative"
    assert outcome.reason == "run 'base': generate raised RuntimeError: no grid"


def test_a_network_that_answers_zero_says_nothing() -> None:
    class Zero(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.velocity.forward = lambda x, log_snr, null: torch.zeros_like(x)  # type: ignore[method-assign]

    outcome = judge("FM708", Zero)
    assert outcome.status == "not informative"
    assert outcome.reason == "every velocity is zero (zero-initialised output layer?)"


def test_an_entry_that_is_never_called_says_nothing() -> None:
    class Unused(WithEntry):
        pass

    outcome = judge("FM708", Unused, entry="entry")
    assert (outcome.status, outcome.reason) == ("not informative", "the public entry was not called")


# The other values.


def test_values_by_kind() -> None:
    others = alternatives(
        base_run(
            flag=True, seed=0, size=64, steps=4, number=11, weight=0.0, prompts=["a", "b", "c"], text="a", none=None
        )
    )
    values = {name: other.value if other else None for name, other in others.items()}
    assert values == {
        "flag": False,
        "seed": 1,
        "size": 72,
        "steps": 5,
        "number": 12,
        "weight": 0.5,
        "prompts": ["b", "c", "a"],
        "text": None,
        "none": None,
    }
    known = {name: other.meaning_known for name, other in others.items() if other}
    assert known == {
        "flag": False, "seed": True, "size": True, "steps": True, "number": False, "weight": False, "prompts": True
    }  # fmt: skip


def test_halves_are_rotated_within_themselves() -> None:
    ids = torch.arange(6)[:, None] + 10
    other = alternatives(base_run(ids=ids))["ids"]
    assert other is not None
    assert other.value.flatten().tolist() == [12, 10, 11, 15, 13, 14]


def test_masks_lose_the_last_word_of_rows_that_have_two() -> None:
    mask = torch.tensor([[1, 1, 1, 0], [0, 1, 1, 1], [1, 0, 0, 0]])
    other = alternatives(base_run(mask=mask))["mask"]
    assert other is not None
    assert other.value.tolist() == [[1, 1, 0, 0], [0, 1, 1, 0], [1, 0, 0, 0]]
    assert mask[0].tolist() == [1, 1, 1, 0], "the recorded value is as it was"
    assert alternatives(base_run(mask=mask[2:]))["mask"] is None, "no row can lose a word"


def test_equal_rows_and_zeros_cannot_be_tested() -> None:
    others = alternatives(base_run(ids=torch.full((3, 2), 5), embeds=torch.zeros(3, 2), texts=["a", "a", "a"]))
    assert set(others.values()) == {None}


def test_floating_tensors_are_scaled() -> None:
    other = alternatives(base_run(embeds=torch.tensor([[1.0, 4.0]])))["embeds"]
    assert other is not None
    assert other.value.tolist() == [[0.75, 3.0]]


def test_tensors_of_an_entry_called_twice_are_not_tested() -> None:
    run = base_run(ids=torch.arange(3)[:, None], steps=4)
    run.trace.calls.append(replace(run.trace.of("generate")[0], number=1))
    others = alternatives(run)
    assert others["ids"] is None
    assert others["steps"] is not None
