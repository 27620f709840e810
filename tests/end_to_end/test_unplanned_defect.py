"""A model author's own copy of the tiny model, with a defect that no mutant plants."""

from types import MethodType
from typing import Any

import torch

from fmcheck.run import check
from fmcheck.subjects.tiny import subject


def _with_loop(integrate: Any) -> Any:
    def build(case: Any) -> Any:
        model = subject.build(case)
        model.integrate = MethodType(integrate, model)
        return model

    return subject.but(name="copy with a defect", build=build)


def _momentum(model: Any, x: torch.Tensor, grid: Any, cfg_scale: float) -> torch.Tensor:
    """Every step reuses a tenth of the velocity before it: harmless-looking, and no Euler step any more."""
    before = None
    for t, dt in zip(grid.t_mid, grid.dt, strict=True):
        cond, uncond = model.velocities(x, t, guided=cfg_scale != 0)
        v = cond if uncond is None else model.combine(cond, uncond, cfg_scale)
        mixed = v if before is None else 0.9 * v + 0.1 * before
        x, before = x + dt * mixed, v
    return x


def test_momentum_in_the_loop_is_found_with_evidence() -> None:
    report = check(_with_loop(_momentum))
    assert report.failed()
    found = {finding.code for finding in report.findings}
    assert "FM501" in found
    worst = next(finding for finding in report.findings if finding.code == "FM501")
    assert worst.ratio is not None
    assert worst.ratio > 100
    assert worst.where
