"""The judge on pictures whose content is known: right on the truth, and wrong about exactly what is wrong."""

import math
from dataclasses import replace

import pytest
import torch

from fmcheck.tiny.judge import ATTRIBUTES, fit, look, score
from fmcheck.tiny.render import render
from fmcheck.tiny.scenes import PALETTE, RADII, SHAPES, Scene, exactly, example, jittered, parse

SCENE = Scene("large", "red", "square", "blue", "top left")


def judged(picture, scene=SCENE):
    """Names of the attributes that the judge calls wrong."""
    scores = score([str(scene)], picture)
    wrong = [name for name in ATTRIBUTES if scores[name] == 0]
    assert float(scores["score"]) == pytest.approx(1 - len(wrong) / 6)
    assert float(scores["full"]) == (not wrong)
    assert float(scores["basic"]) == (not {"background", "colour", "position"} & set(wrong))
    return wrong


def drawn(size=(256, 256), **changes):
    return render([replace(exactly(SCENE), **changes)], *size)


@pytest.mark.parametrize(
    ("split", "size", "count"),
    [
        ("held_out", (256, 256), 100),
        ("train", (256, 256), 60),
        ("held_out", (192, 320), 60),
        ("held_out", (320, 192), 60),
        ("train", (512, 512), 12),
        ("held_out", (128, 128), 60),
    ],
)
def test_the_truth_is_right(split, size, count):
    """The figure that was asked for is 99 %."""
    examples = [example(split, index) for index in range(count)]
    scores = score([prompt for prompt, _ in examples], render([placed for _, placed in examples], *size))
    assert float(scores["full"].mean()) >= 0.99


def test_pictures_of_other_prompts_are_wrong():
    examples = [example("held_out", index) for index in range(100)]
    prompts = [prompt for prompt, _ in examples]
    scores = score(prompts[1:] + prompts[:1], render([placed for _, placed in examples], 128, 128))
    # By chance: one of about 6 backgrounds, 8 colours, 5 positions.
    assert float(scores["basic"].mean()) <= 0.05
    assert float(scores["full"].mean()) <= 0.02


def test_the_plain_scene():
    assert judged(drawn()) == []


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"background": PALETTE["black"]}, ["background"]),
        ({"colour": PALETTE["orange"]}, ["colour"]),
        ({"centre": (0.30, 0.70)}, ["position"]),
        ({"centre": (0.50, 0.50)}, ["position"]),
        ({"radius": RADII["small"]}, ["size"]),
        ({"shape": "circle"}, ["shape"]),
        ({"shape": "triangle"}, ["shape"]),
        ({"shape": "cross"}, ["shape"]),
        ({"colour": (0.49, 0.19, 0.49)}, ["colour"]),
    ],
)
def test_one_thing_is_wrong(changes, wrong):
    assert judged(drawn(**changes)) == wrong


def test_a_second_shape_is_dirt():
    both = torch.maximum(drawn(), render([replace(exactly(SCENE), centre=(0.75, 0.75), radius=0.05)], 256, 256))
    assert "clean" in judged(both)


def test_noise_everywhere_is_dirt():
    noise = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    assert "clean" in judged((drawn() + noise).clamp(-1, 1))


def test_an_empty_picture_has_a_background_at_most():
    blue = torch.tensor(PALETTE["blue"])[None, :, None, None].expand(1, 3, 128, 128) * 2 - 1
    assert judged(blue) == [name for name in ATTRIBUTES if name != "background"]


def test_a_picture_that_is_no_number_is_all_wrong():
    picture = drawn()
    picture[0, 0, 3, 3] = math.nan
    assert judged(picture) == list(ATTRIBUTES)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", ["large", "small"])
def test_shapes_are_told_apart_under_every_turn(shape, size):
    scene = Scene(size, "white", shape, "black", "center")
    for seed in range(20):
        picture = (render([jittered(scene, seed)], 256, 256)[0] + 1) / 2
        assert fit(look(picture)).shape == shape


def test_what_is_seen_is_what_was_drawn():
    seen = look((drawn()[0] + 1) / 2)
    assert seen.centre == pytest.approx((0.30, 0.30), abs=0.002)
    assert seen.radius == pytest.approx(RADII["large"], rel=0.02)
    assert seen.colour == pytest.approx(PALETTE["red"], abs=1e-6)


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="prompts: expected at least one prompt"):
        score([], torch.zeros(0, 3, 64, 64))
    with pytest.raises(ValueError, match=r"images: expected shape \[2, 3, \*, \*\]"):
        score([str(SCENE)] * 2, drawn())
    with pytest.raises(ValueError, match="prompt: expected one of the grammar"):
        score(["a cat"], drawn())
    assert parse(str(SCENE)) == SCENE
