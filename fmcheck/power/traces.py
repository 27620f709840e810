"""Faults that change no picture: what a run leaves behind in the model, its inputs and the process."""

from typing import Any

import torch
from torch import Tensor, nn

from fmcheck.power.fault import Call, around, on_result
from fmcheck.record.model_state import walk

__all__: list[str] = []


def _modules(call: Call) -> list[nn.Module]:
    return [module for _, module in walk(call.model)]


@around("velocity", rules=("FM707",), quiet=True)
def global_seed_set(call: Call) -> Any:
    """The process's global generator is seeded before every call of the network."""
    call.did()
    torch.default_generator.manual_seed(0)
    return call.go()


@on_result(rules=("FM707",), quiet=True)
def global_number_drawn(images: Tensor, call: Call) -> Tensor:
    """One number is drawn from the process's global generator, and not used."""
    call.did()
    torch.rand(())
    return images


@on_result(rules=("FM709",), quiet=True)
def weight_changed(images: Tensor, call: Call) -> Tensor:
    """A weight is another one after the run."""
    weight = next((p for m in _modules(call) for p in m.parameters(recurse=False) if p.is_floating_point()), None)
    if weight is None:
        call.refuse("no module with weights was found in the model")
        return images
    with torch.no_grad():
        weight.mul_(1.001)
    call.did()
    return images


@on_result(rules=("FM709",), quiet=True)
def train_mode_left_on(images: Tensor, call: Call) -> Tensor:
    """The model is in train mode after the run."""
    modules = [module for module in _modules(call) if not module.training]
    if not modules:
        call.refuse("the model has no module that is in eval mode")
        return images
    for module in modules:
        module.training = True
    call.did()
    return images


@around("velocity", rules=("FM714",))
def sampled_in_train_mode(call: Call) -> Any:
    """The network is called in train mode."""
    changed = [module for module in _modules(call) if not module.training]
    if not changed:
        call.refuse("the model has no module that is in eval mode")
    for module in changed:
        module.training = True
        call.did()
    try:
        return call.go()
    finally:
        for module in changed:
            module.training = False


@on_result(rules=("FM710",), quiet=True)
def inputs_changed_in_place(images: Tensor, call: Call) -> Tensor:
    """A tensor that the caller passed holds other values after the run."""
    given = next((value for value in call.request.inputs.values() if isinstance(value, Tensor)), None)
    if given is None:
        call.refuse("the request holds no tensors: the subject has no tokenize")
        return images
    with torch.no_grad():
        given.add_(1)
    call.did()
    return images


@on_result(rules=("FM713",), quiet=True)
def default_dtype_left(images: Tensor, call: Call) -> Tensor:
    """The process's default dtype is float64 after the run."""
    call.did()
    torch.set_default_dtype(torch.float64)
    return images


@on_result(rules=("FM709",), quiet=True)
def hook_left(images: Tensor, call: Call) -> Tensor:
    """A forward hook is left on a module of the model."""
    module = next(iter(_modules(call)), None)
    if module is None:
        call.refuse("no module was found in the model")
        return images
    module.register_forward_hook(lambda *_: None)
    call.did()
    return images


@around("velocity", rules=("FM715",), quiet=True)
def gradients_recorded(call: Call) -> Any:
    """The network is called with gradients switched on."""
    call.did()
    with torch.enable_grad():
        return call.go()
