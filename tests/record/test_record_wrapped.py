"""Networks that other libraries have wrapped are read as the networks they hold."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from fmcheck.run import check
from fmcheck.subject import Subject
from fmcheck.subjects.tiny import subject as tiny


def _with_network(change: Callable[[nn.Module], nn.Module]) -> Subject:
    def build(case: Any) -> Any:
        model = tiny.build(case)
        model.fm_transformers = change(model.fm_transformers)
        return model

    return tiny.but(build=build)


def _hooked(network: nn.Module) -> nn.Module:
    hooks = pytest.importorskip("accelerate.hooks")
    hooks.add_hook_to_module(network, hooks.AlignDevicesHook(execution_device="cpu", io_same_device=True))
    return network


def _adapted(network: nn.Module) -> nn.Module:
    peft = pytest.importorskip("peft")
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return peft.get_peft_model(network, peft.LoraConfig(r=2, target_modules=linear[:2])).eval()


class Parallel(nn.Module):
    """As DistributedDataParallel and FSDP hold a network: in `module`, behind a forward that takes anything."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)


@pytest.mark.parametrize("change", [_hooked, _adapted, Parallel])
def test_a_wrapped_network_is_read(change: Callable[[nn.Module], nn.Module]) -> None:
    report = check(_with_network(change), select=["FM1", "FM201", "FM203", "FM303", "FM307", "FM709"])
    assert not report.failed()
    judged = {outcome.rule.code for outcome in report.outcomes if outcome.status == "passed"}
    assert {"FM101", "FM104", "FM201", "FM203", "FM303", "FM307", "FM709"} <= judged
