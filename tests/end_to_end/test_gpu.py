"""The whole suite on a CUDA device. Machines without one skip, with the reason."""

import pytest
import torch

from fmcheck.run import check
from fmcheck.subjects.tiny import subject

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device"),
]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_clean_model_is_clean_on_cuda(dtype: str) -> None:
    report = check(subject, device="cuda", dtype=dtype)
    assert [str(finding) for finding in report.findings] == []
    assert report.count("passed") >= 50


def test_every_mutant_of_the_development_log_is_caught_on_cuda() -> None:
    from fmcheck.mutants import all_mutants
    from fmcheck.rules import get_rule
    from fmcheck.session import Session

    for mutant in all_mutants()[:9]:
        session = Session(mutant.change(subject), device="cuda")
        assert session.judge(get_rule(mutant.caught_by)).status == "failed", mutant.name
