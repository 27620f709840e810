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


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_clean_model_agrees_on_both_devices(dtype: str) -> None:
    mode = torch.get_deterministic_debug_mode()
    outcome = check(subject, select=["FM821"], dtype=dtype).outcomes[0]
    assert (outcome.status, outcome.findings) == ("passed", ()), outcome.reason
    assert (outcome.ratio or 0) < 0.5
    assert torch.get_deterministic_debug_mode() == mode


def test_a_kernel_of_its_own_is_caught_between_the_devices() -> None:
    from fmcheck.mutants import get_mutant

    broken = get_mutant("accelerators_kernel_transposes").change(subject)
    assert check(broken, select=["FM821"]).failed()


def test_every_attention_backend_of_the_device_is_compared_or_left_out_with_a_note() -> None:
    outcome = check(subject, select=["FM819"], device="cuda").outcomes[0]
    assert outcome.status == "passed", outcome.reason
    assert outcome.findings == ()
