"""FM811 and FM812: compiled networks. Everything here compiles, and is slow."""

from typing import Any

import pytest
import torch
from torch import Tensor

from fmcheck.errors import ForeignRuleError, NotInformative
from fmcheck.record.compiled import Compiled, Counted, forget_compiled
from fmcheck.record.points import Arguments, Parameters
from fmcheck.rules import Rule, get_rule
from fmcheck.run import check
from fmcheck.session import Session
from tests.rules.loops import clean
from tests.rules.test_fm8_parity import Attending, told, with_network
from tests.rules.toy import CASE, Toy, Velocity, judge, toy_subject

slow = pytest.mark.slow


@pytest.fixture(autouse=True)
def _clean() -> object:
    yield
    forget_compiled()


# Costly rules and what they leave.


def test_costly_rules_wait_to_be_asked() -> None:
    report = check(toy_subject(), select=["FM81"])
    waiting = {outcome.rule.code: outcome.reason for outcome in report.outcomes if outcome.status == "skipped"}
    assert list(waiting) == ["FM811", "FM812"]
    assert waiting["FM811"].startswith("compiles the network, which takes about 30 s, so only with --thorough")


def test_a_rule_puts_back_what_its_runs_have_left_whatever_happened() -> None:
    done = []

    def breaks(_: Any) -> Any:
        """Raises."""
        raise ZeroDivisionError

    base = get_rule("FM801")
    fields = {"code": "XX001", "name": "breaks", "function": breaks, "needs": (), "kinds": ("generate",)}
    rule = Rule(
        **fields, wishes=lambda plan: {"base": plan.base}, judges_crashes=False, finish=lambda: done.append(True)
    )
    with pytest.raises(ForeignRuleError, match="ZeroDivisionError"):
        Session(toy_subject()).judge(rule)
    assert done == [True]
    assert base.finish() is None


# FM811.


class Guessing(Velocity):
    def forward(self, x: Tensor, log_snr: Tensor, null: Tensor) -> Tensor:
        v = super().forward(x, log_snr, null)
        return 1.01 * v if torch.compiler.is_compiling() else v


@slow
def test_a_compiled_network_agrees() -> None:
    outcome = judge("FM811", with_network(Attending))
    clean(outcome)
    assert outcome.measured[0].startswith("the network compiles with ")


@slow
def test_another_path_when_compiled_is_found() -> None:
    told(judge("FM811", with_network(Guessing)), "compiled by", "the output of velocity[0]", "it is 1.01 times")


def _call(function: Any, call: Any, *args: Any) -> Any:
    return call(function, Arguments(Parameters(function), args, {}))


@slow
def test_where_one_backend_does_not_work_the_next_one_does() -> None:
    def broken(module: Any, _: Any) -> Any:
        raise RuntimeError("no compiler here")

    call = Compiled((broken, "eager"))  # type: ignore[arg-type]
    assert torch.equal(_call(lambda x: 2 * x, call, torch.ones(3)), 2 * torch.ones(3))
    assert call.backend == "eager"
    call = Compiled((broken,))  # type: ignore[arg-type]
    with pytest.raises(NotInformative, match=r"torch\.compile fails on the network .*no compiler here"):
        _call(lambda x: 2 * x, call, torch.ones(3))


# FM812.


class ByTime(Velocity):
    """Looks up a gain by the text of its time."""

    def forward(self, x: Tensor, log_snr: Tensor, null: Tensor) -> Tensor:
        gain = {"0.00": 2.0}.get(f"{float(log_snr[0]):.2f}", 1.0)
        return gain * super().forward(x, log_snr, null)


class BySize(Velocity):
    """Looks up a gain by the text of its size."""

    def forward(self, x: Tensor, log_snr: Tensor, null: Tensor) -> Tensor:
        gain = {"1x1": 2.0}.get(f"{x.shape[2]}x{x.shape[3]}", 1.0)
        return gain * super().forward(x, log_snr, null)


class FilledOnce(Velocity):
    """Makes a table at its first call and keeps it: the second call sees another program, and all later ones that."""

    table: Tensor | None = None

    def forward(self, x: Tensor, log_snr: Tensor, null: Tensor) -> Tensor:
        if self.table is None:
            self.table = torch.ones(())
        return self.table * super().forward(x, log_snr, null)


@slow
def test_a_network_of_tensors_is_compiled_for_its_shapes_only() -> None:
    outcome = judge("FM812", with_network(Attending))
    clean(outcome)
    assert outcome.findings == ()


@slow
def test_a_table_that_is_filled_once_is_no_fault() -> None:
    outcome = judge("FM812", with_network(FilledOnce))
    clean(outcome)
    assert outcome.findings == ()


@slow
def test_a_number_made_of_the_time_compiles_at_every_step() -> None:
    outcome = judge("FM812", with_network(ByTime))
    told(outcome, "compiled the network again, although its shapes had been seen 2 times", "the guard that failed")
    assert {finding.severity for finding in outcome.findings} == {"warning"}


@slow
def test_sizes_as_constants_are_more_compilations_than_sizes_account_for() -> None:
    told(judge("FM812", with_network(BySize)), "for 4 of 4 further sizes of an axis", "size mismatch at index")


@slow
def test_a_python_number_may_be_a_constant_at_first() -> None:
    counted = Counted()

    def scaled(x: Tensor, factor: float) -> Tensor:
        return factor * x

    for factor in (0.25, 0.5, 0.75, 0.875):
        assert torch.equal(_call(scaled, counted, torch.ones(3), factor), torch.full((3,), factor))
    assert [call.numbers for call in counted.calls] == [1] * 4
    assert sum(call.compiled for call in counted.calls) <= 3


@slow
def test_a_hopeless_function_is_no_longer_compiled() -> None:
    counted, made = Counted(), []

    def named(x: Tensor, name: list[int]) -> Tensor:
        made.append(name[0])
        return x * (1.0 if f"{name[0]}" else 0.0)

    for number in range(9):
        _call(named, counted, torch.ones(2), [number])
    assert len(counted.calls) < 9


@slow
def test_the_compiler_forgets_afterwards() -> None:
    session = Session(toy_subject(with_network(Toy().velocity.__class__), case=CASE))
    session.judge(get_rule("FM812"))
    from torch._dynamo.eval_frame import cached_backends

    assert not cached_backends
