"""A time that is NaN is one defect and one finding: what follows from it is nobody else's."""

import torch
from torch import Tensor

from fmcheck.run import check
from tests.rules.toy import CASE, Toy, toy_subject


class OneStepDividesByZero(Toy):
    """The grid is stretched by its own length less the first step: with a single step that is 0 / 0."""

    def log_snr(self, t: Tensor, rows: int) -> Tensor:
        told = super().log_snr(t, rows)
        return told * (self.steps - 1) / (self.steps - 1)

    def integrate(self, x: Tensor, num_steps: int, scale: float, generator: torch.Generator) -> Tensor:
        self.steps = torch.tensor(float(num_steps))
        return super().integrate(x, num_steps, scale, generator)


def test_a_time_that_is_nan_in_some_runs_is_one_finding() -> None:
    report = check(toy_subject(OneStepDividesByZero))
    assert {finding.code for finding in report.findings} == {"FM109"}
    assert all(".time holds" in finding.message for finding in report.findings)


def test_a_time_that_is_nan_in_all_runs_is_one_finding() -> None:
    report = check(toy_subject(OneStepDividesByZero, case=CASE.but(num_steps=1)))
    assert {finding.code for finding in report.findings} == {"FM109"}
