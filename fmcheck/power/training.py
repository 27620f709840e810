"""Faults in the training loss."""

from typing import Any

import torch
from torch import Tensor

from fmcheck.power.fault import Call, around, on_input, on_output, per_channel

__all__: list[str] = []


@on_input("velocity", "time", rules=("FM901", "FM903"), kind="loss")
def trained_at_shifted_times(time: Tensor, call: Call) -> Tensor:
    """In training the network is told nine tenths of the time argument."""
    return (time * 0.9).to(time.dtype)


@on_input("velocity", "time", rules=("FM901", "FM902"), kind="loss")
def trained_at_the_first_rows_time(time: Tensor, call: Call) -> Tensor:
    """In training every row is told the time of the first one."""
    return time.flatten()[:1].expand(time.numel()).reshape(time.shape).clone()


@on_input("velocity", "null", rules=("FM905",), kind="loss")
def never_trained_unconditionally(null: Tensor, call: Call) -> Tensor:
    """In training no row is told to be unconditional."""
    return torch.zeros_like(null)


@on_input("velocity", "null", rules=("FM905",), kind="loss")
def trained_with_the_null_inverted(null: Tensor, call: Call) -> Tensor:
    """In training the null indicator is inverted."""
    return ~null if null.dtype == torch.bool else (null == 0).to(null.dtype)


@on_input("velocity", "x", rules=("FM903",), kind="loss")
def trained_off_the_path(x: Tensor, call: Call) -> Tensor:
    """In training the network is handed states that are multiplied by 1.1."""
    return x * 1.1


@on_input("velocity", "x", rules=("FM903",), kind="loss")
def trained_on_another_rows_path(x: Tensor, call: Call) -> Tensor:
    """In training the network is handed the states of other rows."""
    return x.roll(1, 0)


@on_output("velocity", rules=("FM904",), kind="loss")
def trained_towards_the_opposite(v: Tensor, call: Call) -> Tensor:
    """In training the output has the opposite sign: the target is noise minus data."""
    return -v


@on_output("encode", rules=("FM607", "FM903"), kind="loss")
def encoded_scaled_twice(x: Tensor, call: Call) -> Tensor:
    """In training the latent scale is applied a second time."""
    spec = call.subject.spec
    twice = (x - per_channel(spec.latent_shift, x)) * per_channel(spec.latent_scale, x)
    return x * 0.18215 if torch.equal(twice, x) else twice


@on_output("encode", rules=("FM903", "FM904"), kind="loss")
def encoded_rows_rotated(x: Tensor, call: Call) -> Tensor:
    """In training the pictures are those of other prompts."""
    return x.roll(1, 0)


@around("velocity", rules=("FM907",), kind="loss", quiet=True)
def trained_with_global_randomness(call: Call) -> Any:
    """In training a number is drawn from the process's global generator."""
    call.did()
    torch.rand(())
    return call.go()
