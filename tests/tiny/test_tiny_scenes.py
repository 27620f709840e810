"""The grammar of pictures: every prompt once, a split that does not move, jitter that is a function of its seed."""

import itertools
import math
from collections import Counter

import pytest
import torch

from fmcheck.tiny import WordTokenizer
from fmcheck.tiny.scenes import (
    BACKGROUNDS,
    CENTRES,
    COLOURS,
    JITTER_CENTRE,
    JITTER_RADIUS,
    PALETTE,
    RADII,
    Scene,
    exactly,
    example,
    jittered,
    parse,
    scenes,
)

# Circumradius of the triangle of the same area as the unit circle: the shape that reaches furthest.
FURTHEST = math.sqrt(4 * math.pi / (3 * math.sqrt(3)))


def test_the_splits_are_all_prompts_once():
    both = [str(scene) for split in ("train", "held_out") for scene in scenes(split)]
    # 2 sizes, 4 shapes, 5 positions; 8 colours on 6 backgrounds, of which 4 are colours too.
    assert len(both) == len(set(both)) == 2 * 4 * 5 * (8 * 6 - 4)
    assert len(scenes("held_out")) == 176


def test_the_split_does_not_move():
    """By the SHA-256 of the prompts; the first of each as `printf … | sha256sum` sorts them."""
    assert str(scenes("held_out")[0]) == "a large green square on a yellow background, top right"
    assert str(scenes("held_out")[1]) == "a small green circle on a black background, top left"


def test_every_word_of_a_held_out_prompt_was_trained():
    words = [Counter(getattr(scene, name) for scene in scenes("train")) for name in vars(scenes("train")[0])]
    for scene in scenes("held_out"):
        for name, count in zip(vars(scene), words, strict=True):
            assert count[getattr(scene, name)] > 100


def test_the_tokenizer_knows_every_prompt():
    tokenizer = WordTokenizer()
    ids, _ = tokenizer([str(scene) for split in ("train", "held_out") for scene in scenes(split)])
    assert not (ids == tokenizer.unk_id).any()


def test_prompts_are_read_back():
    assert all(parse(str(scene)) == scene for scene in scenes("held_out"))


@pytest.mark.parametrize(
    "prompt",
    ["", "a red circle", "a large red circle on a red background, center", "a blue white circle", None, 3],
)
def test_other_texts_are_refused(prompt):
    with pytest.raises(ValueError, match="prompt: expected one of the grammar, as 'a "):
        parse(prompt)


def test_another_split_is_refused():
    with pytest.raises(ValueError, match="split: expected 'train' or 'held_out', found 'test'"):
        scenes("test")


def test_a_picture_is_a_function_of_its_number():
    before = torch.get_rng_state()
    assert example("train", 1584 + 3) == example("train", 1584 + 3)
    assert torch.equal(before, torch.get_rng_state())
    again, first = example("train", 1584 + 3), example("train", 3)
    assert again[0] == first[0]
    assert again[1] != first[1], "the same scene comes with another jitter"


def test_jitter_stays_within_its_bounds():
    scene = Scene("large", "red", "triangle", "black", "center")
    plain = exactly(scene)
    for seed in range(200):
        placed = jittered(scene, seed)
        assert all(abs(a - b) <= JITTER_CENTRE for a, b in zip(placed.centre, plain.centre, strict=True))
        assert abs(placed.radius / plain.radius - 1) <= JITTER_RADIUS
        assert all(0 <= c <= 1 for c in placed.colour + placed.background)


def test_no_shape_leaves_the_picture():
    reach = FURTHEST * RADII["large"] * (1 + JITTER_RADIUS) + JITTER_CENTRE
    assert all(min(*centre, 1 - centre[0], 1 - centre[1]) >= reach - 0.02 for centre in CENTRES.values())


def test_colours_differ_by_much_more_than_their_jitter():
    named = {*COLOURS, *BACKGROUNDS}
    assert named == set(PALETTE)
    nearest = min(math.dist(PALETTE[a], PALETTE[b]) for a, b in itertools.combinations(PALETTE, 2))
    assert nearest > 0.35
