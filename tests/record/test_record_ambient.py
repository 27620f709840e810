"""Settings around a run: each is on inside, and everything is as before outside, whatever happened in between."""

import os
from typing import Any

import pytest
import torch

from fmcheck.errors import InternalError
from fmcheck.record.ambient import AMBIENTS, ambient


def _settings() -> dict[str, Any]:
    backends = [torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None)]
    return {
        "gradients": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "precision": torch.get_float32_matmul_precision(),
        "products": [getattr(backend, "fp32_precision", None) for backend in backends],
        "convolutions": torch.backends.cudnn.allow_tf32,
        "deterministic": torch.get_deterministic_debug_mode(),
        "benchmark": torch.backends.cudnn.benchmark,
        "attention": [torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.math_sdp_enabled()],
        "environment": dict(os.environ),
    }


# What a look inside must show; the compiler's settings are looked at in the slow tests.
INSIDE = {
    "no_grad": ("gradients", False),
    "inference_mode": ("inference", True),
    "autocast-bfloat16": ("autocast", True),
    "full-products": ("convolutions", False),
    "reduced-products": ("precision", "medium"),
    "deterministic": ("deterministic", 1),
    "sdpa-math": ("attention", [False, True]),
    "sdpa-flash": ("attention", [True, False]),
    "sdpa-efficient": ("attention", [False, False]),
    "sdpa-cudnn": ("attention", [False, False]),
}


def test_every_setting_but_the_compilers_is_looked_at() -> None:
    assert set(INSIDE) == set(AMBIENTS) - {"compiling"}


@pytest.mark.parametrize("name", INSIDE)
def test_a_setting_is_on_inside_and_off_again_after_an_exception(name: str) -> None:
    before = _settings()
    with pytest.raises(ZeroDivisionError), ambient((name,), "cpu"):  # noqa: PT012
        setting, value = INSIDE[name]
        assert _settings()[setting] == value
        raise ZeroDivisionError
    assert _settings() == before


def test_settings_lie_inside_each_other() -> None:
    with ambient(("inference_mode", "autocast-bfloat16"), "cpu"):
        assert torch.is_inference_mode_enabled()
        assert torch.is_autocast_enabled("cpu")
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16


def test_an_unknown_setting_is_our_own_mistake() -> None:
    with (
        pytest.raises(InternalError, match="no ambient setting 'tf31'; there are no_grad, "),
        ambient(("tf31",), "cpu"),
    ):
        pass


@pytest.mark.slow
def test_the_compilers_settings_are_put_back() -> None:
    import torch._dynamo.config
    import torch._inductor.config

    before = torch._dynamo.config.suppress_errors, torch._inductor.config.compile_threads
    limit = torch._dynamo.config.recompile_limit
    with ambient(("compiling",), "cpu"):
        assert torch._inductor.config.compile_threads == 1
        assert torch._dynamo.config.recompile_limit == 64
    assert before == (torch._dynamo.config.suppress_errors, torch._inductor.config.compile_threads)
    assert limit == torch._dynamo.config.recompile_limit
