"""FM821: the comparison of two devices, with a second run in the place of the second device."""

from typing import Any

import pytest
import torch
from torch import Tensor

from fmcheck.errors import NotInformative
from fmcheck.parity import device_runs
from fmcheck.plan import Run, Wish
from fmcheck.record.disturb import Disturbance, change_output
from fmcheck.record.trace import Draw
from fmcheck.rules import Check, get_rule
from fmcheck.session import Session
from tests.rules.toy import CASE, Toy, toy_subject

RULE = get_rule("FM821")


@pytest.fixture
def session() -> Session:
    return Session(toy_subject())


def _runs(session: Session, *changes: Disturbance) -> dict[str, Run]:
    """The native case under the settings of the rule, twice; the second time as another device would make it."""
    wish = device_runs(session.plan)["base"]
    other = Wish("other-device", wish.case, ambient=wish.ambient, disturbances=changes, turn=1)
    return {"base": session.run(wish), "other": session.run(other)}


def _judged(runs: dict[str, Run]) -> list[Check]:
    return list(RULE.function(runs))


def _noise(size: float) -> Disturbance:
    """Every velocity off by a relative error that kernels of another device may have."""

    def rounded(_: Any, v: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(v.numel())
        return v * (1 + size * torch.randn(v.shape, generator=generator))

    return change_output(f"noise of {size}", "velocity", rounded)


def test_a_machine_without_a_second_device_skips_and_says_so(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    outcome = session.judge(RULE)
    assert (outcome.status, outcome.reason) == ("skipped", "this machine has no CUDA or MPS device")


def test_rounding_of_other_kernels_is_allowed(session: Session) -> None:
    checks = _judged(_runs(session, _noise(3e-7)))
    assert all(check.holds for check in checks)
    assert 0 < max(check.ratio or 0 for check in checks) < 0.1


def test_another_result_is_found_where_it_begins(session: Session) -> None:
    transposed = change_output("transposed", "velocity", lambda _, v: v.transpose(2, 3).contiguous())
    (failed,) = [check for check in _judged(_runs(session, transposed)) if not check.holds]
    assert "on cpu: the output of velocity[0] differs by" in failed.message
    assert "the same values in another order" in str(failed.diagnosis)


def test_noise_of_the_devices_own_generator_is_other_noise(session: Session) -> None:
    runs = _runs(session)
    runs["other"].trace.draws.append(Draw("cuda:0", "before the first observed call", None))
    with pytest.raises(NotInformative, match="noise is drawn from cuda:0 and not from the caller's generator"):
        _judged(runs)


def test_the_settings_are_put_back(session: Session) -> None:
    _runs(session)
    assert torch.get_deterministic_debug_mode() == 0
    assert torch.backends.cudnn.allow_tf32


def test_the_other_devices_model_has_the_native_weights() -> None:
    """`meta` stands for a device whose weights are drawn anew: it must be asked for them, and holds no numbers."""
    drawn = iter((0.5, 2.0))

    def build(case: Any) -> Toy:
        model = Toy()
        torch.nn.init.constant_(model.velocity.weight, next(drawn))
        # A second kind of device that every machine has, whose tensors can be written to and never read.
        return model.to(case.device)

    session = Session(toy_subject(build=build))
    native, state = session.model(session.plan.native)
    other, adopted = session.model(CASE.but(device="meta"))
    assert native.velocity.weight.unique().tolist() == [0.5]
    assert other.velocity.weight.device.type == "meta"
    assert state.unlike(adopted) is None
