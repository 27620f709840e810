"""Names of arguments that `fmcheck init` reads, and what it says of an answer that is not what was asked for."""

import inspect

import pytest
import torch

from fmcheck.errors import DeclarationError
from fmcheck.init import propose
from fmcheck.init.calling import roles_of


def roles(function):
    return roles_of(list(inspect.signature(function).parameters.values()))


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        (lambda prompts, h, w, steps, scale: 0, {"height": "h", "width": "w", "scale": "scale"}),
        (lambda prompts, steps, w: 0, {"scale": "w"}),
        (lambda texts, rows, cols, n, g, rng: 0, {"height": "rows", "width": "cols", "scale": "g", "steps": "n"}),
        (lambda prompt, image_height, image_width, steps: 0, {"height": "image_height", "width": "image_width"}),
    ],
)
def test_sizes_and_scales_under_the_names_that_people_give_them(sampler, expected):
    assert expected.items() <= roles(sampler).items()


class Fixed(torch.nn.Module):
    def generate(self, prompts, steps, scale, up=128):
        return torch.zeros(len(prompts), 3, up, up)


def build():
    return Fixed()


def test_what_was_returned_is_said(monkeypatch):
    with pytest.raises(
        DeclarationError, match=r"returned f32\[2,3,128,128\], and float pictures \[2, 3, \d+, \d+\] were"
    ):
        propose(f"{__name__}:build")
