"""Planting: the fault is where it is said to be, only there, and nothing is left of it."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fmcheck.errors import DeclarationError
from fmcheck.power import Fault, all_faults
from fmcheck.power.plant import planted
from fmcheck.record.attach import Wrapper
from fmcheck.record.model_state import ModelState, walk
from fmcheck.record.watch import settings
from fmcheck.session import Session, provides
from fmcheck.subject import Request, Subject
from fmcheck.wish import Run
from tests.rules.toy import Toy, toy_subject


def fault(name: str) -> Fault:
    return all_faults([name])[0]


def base_run(subject: Subject) -> Run:
    session = Session(subject)
    return session.run(session.plan.base)


def run_with(name: str, subject: Subject) -> tuple[Run, int]:
    """The faulty base run, and how often something was changed in it."""
    with planted(subject, fault(name)) as planting:
        return base_run(planting.subject), planting.memory.touched


class Kept:
    """A subject that hands out one model, so that a test can look at it afterwards."""

    def __init__(self, model: type[Toy] = Toy, **overrides: Any) -> None:
        self.model = model()
        self.subject = toy_subject(build=lambda case: self.model, **overrides)


def test_the_loop_gets_the_fault_and_the_recorder_what_the_network_really_returned() -> None:
    clean, (faulty, touched) = base_run(toy_subject()), run_with("velocity_negated", toy_subject())
    assert touched == len(faulty.trace.of("velocity"))
    assert torch.equal(clean.trace.of("velocity")[0].output, faulty.trace.of("velocity")[0].output)
    assert not torch.equal(clean.result, faulty.result)


def test_what_the_loop_passes_on_wrongly_is_what_the_recorder_sees() -> None:
    clean, (faulty, _) = base_run(toy_subject()), run_with("null_inverted", toy_subject())
    assert torch.equal(clean.trace.of("velocity")[0].inputs["null"], ~faulty.trace.of("velocity")[0].inputs["null"])


def test_a_fault_of_the_network_is_seen_by_recorder_and_loop_alike() -> None:
    clean, (faulty, _) = base_run(toy_subject()), run_with("neighbour_leaks_in_the_network", toy_subject())
    assert not torch.equal(clean.trace.of("velocity")[0].output, faulty.trace.of("velocity")[0].output)


def test_the_subject_itself_stays_without_the_fault() -> None:
    subject = toy_subject()
    clean = base_run(subject)
    with planted(subject, fault("velocity_negated")):
        assert torch.equal(base_run(subject).result, clean.result)


@pytest.mark.parametrize("planted_fault", all_faults(), ids=lambda f: f.name)
def test_model_and_process_are_as_before(planted_fault: Fault) -> None:
    kept = Kept()
    assert all(provides(kept.subject, need) for need in planted_fault.needs), "the toy has every point"
    before, attributes, process = ModelState(kept.model), _attributes(kept.model), settings()
    random = torch.get_rng_state()
    with planted(kept.subject, planted_fault) as planting:
        session = Session(planting.subject)
        session.run(session.plan.base if planted_fault.kind == "generate" else session.plan.loss)
        if planted_fault.side == "loop":
            assert _attributes(kept.model) == attributes, "nothing hangs on the model between two runs"
    assert before.changes() == []
    assert _attributes(kept.model) == attributes
    assert settings() == process
    assert torch.equal(torch.get_rng_state(), random)


def _attributes(model: nn.Module) -> dict[str, dict[str, int]]:
    """What hangs on every module, by identity; hooks and modes are in the model's state."""
    return {path: {key: id(value) for key, value in vars(m).items() if key != "training"} for path, m in walk(model)}


def test_it_is_taken_off_although_the_pipeline_raises() -> None:
    class Raises(Toy):
        def finish(self, images: Tensor) -> Tensor:
            raise ValueError("no pictures today")

    for name in ("velocity_negated", "neighbour_leaks_in_the_network"):
        kept = Kept(Raises)
        run, touched = run_with(name, kept.subject)
        assert touched
        assert run.failure is not None
        assert not any(isinstance(value, Wrapper) for _, m in walk(kept.model) for value in vars(m).values())


def test_one_place_of_two_models_has_the_fault_once() -> None:
    kept = Kept()
    with planted(kept.subject, fault("neighbour_leaks_in_the_network")) as planting:
        for _ in range(2):
            planting.subject.build(planting.subject.case)
        assert not isinstance(vars(kept.model.velocity)["forward"].original, Wrapper)


def test_a_fault_of_training_leaves_sampling_alone_and_the_reverse() -> None:
    with planted(toy_subject(), fault("trained_off_the_path")) as planting:
        assert torch.equal(base_run(planting.subject).result, base_run(toy_subject()).result)
    with planted(toy_subject(), fault("velocity_negated")) as planting:
        session, clean = Session(planting.subject), Session(toy_subject())
        assert torch.equal(session.run(session.plan.loss).result, clean.run(clean.plan.loss).result)


def test_previews_are_made_while_the_fault_is_there() -> None:
    def previews(model: Toy, request: Request) -> Iterator[Tensor]:
        yield torch.zeros(1)
        yield toy_subject().generate(model, request)

    clean = base_run(toy_subject())
    faulty, touched = run_with("velocity_negated", toy_subject(generate=previews))
    assert touched
    assert not torch.equal(faulty.result, clean.result)


def test_a_network_that_calls_itself_in_parts_has_the_fault_once() -> None:
    class InParts(Toy):
        def __init__(self) -> None:
            super().__init__()
            whole = self.velocity

            class Parts(nn.Module):
                def forward(self, x: Tensor, log_snr: Tensor, null: Tensor) -> Tensor:
                    if len(x) > 1:
                        rows = zip(x.split(1), log_snr.split(1), null.split(1), strict=True)
                        return torch.cat([self(*row) for row in rows])
                    return whole(x, log_snr, null)

            self.velocity = Parts()

    run, touched = run_with("velocity_negated", toy_subject(InParts))
    assert touched == len(run.trace.of("velocity"))


def test_training_faults_need_a_loss() -> None:
    subject = toy_subject(loss=None, loss_entry=None)
    with pytest.raises(DeclarationError, match="declares no loss"), planted(subject, fault("trained_off_the_path")):
        pass
