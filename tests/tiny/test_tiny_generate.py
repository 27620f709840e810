"""The evaluation script's interface: 2B prompts in, B pictures out, nothing else touched."""

import random
import warnings

import numpy as np
import pytest
import torch

from fmcheck.tiny import build

PROMPTS = ["a large red circle on a blue background, top left", "a small green square on a black background"]


def generate(model, tokens, cfg=3.0, steps=3, seed=0, height=256, width=256):
    ids, mask = tokens
    return model.generate(ids, mask, cfg, steps, torch.Generator().manual_seed(seed), height, width)


@pytest.mark.parametrize(("height", "width"), [(256, 256), (128, 512), (64, 96)])
@pytest.mark.filterwarnings("ignore:the text latent")
def test_pictures_of_the_conditional_half(tiny_model, tokens, height, width):
    image = generate(tiny_model, tokens, height=height, width=width)
    assert image.shape == (2, 3, height, width)
    assert image.dtype == torch.float32
    assert image.min().item() >= -1
    assert image.max().item() <= 1
    assert not image.requires_grad


def test_it_is_the_composition_of_its_methods(tiny_model, tokens, seeded):
    ids, mask = tokens
    with torch.no_grad():
        z = tiny_model.text_encoder(ids[:2], mask[:2], seeded(0)).z
        x = tiny_model.integrate(tiny_model.initial_state(z, 256, 256), tiny_model.time_grid(3), 3.0)
        expected = tiny_model.decode_state(x)
    assert torch.equal(generate(tiny_model, tokens), expected)


def test_same_seed_same_bits(tiny_model, tokens):
    assert torch.equal(generate(tiny_model, tokens, seed=5), generate(tiny_model, tokens, seed=5))


def test_two_builds_agree(tiny_model, fresh_model, tokens):
    assert torch.equal(generate(fresh_model, tokens), generate(tiny_model, tokens))


@pytest.mark.parametrize("change", [{"seed": 1}, {"cfg": 0.0}, {"cfg": 4.5}, {"steps": 4}])
def test_every_argument_matters(tiny_model, tokens, change):
    difference = generate(tiny_model, tokens, **change) - generate(tiny_model, tokens)
    assert difference.abs().mean().item() > 0.005


def test_prompts_matter(tiny_model):
    same_noise = [generate(tiny_model, tiny_model.tokenizer([prompt, ""])) for prompt in PROMPTS]
    assert (same_noise[0] - same_noise[1]).abs().mean().item() > 0.1


@pytest.mark.parametrize("cfg", [0.0, 1.0, 6.0])
def test_pictures_are_not_constant(tiny_model, cfg):
    tokens = tiny_model.tokenizer([PROMPTS[0], "a small green square on a black background, center", "", ""])
    image = generate(tiny_model, tokens, cfg=cfg, steps=8)
    # The shape covers at least a thirtieth of the picture and is a third of the range away: 0.67 sqrt(1 / 30).
    assert (image.std(dim=(2, 3)).amax(dim=1) > 0.1).all()
    assert (image[0] - image[1]).abs().mean().item() > 0.1


def test_zero_guidance_asks_for_no_unconditional_velocity(tiny_model, tokens):
    rows = []
    handle = tiny_model.fm_transformers.register_forward_pre_hook(lambda _, inputs: rows.append(inputs[0].shape[0]))
    try:
        generate(tiny_model, tokens, cfg=0.0)
        generate(tiny_model, tokens, cfg=3.0)
    finally:
        handle.remove()
    assert rows == [2, 2, 2, 4, 4, 4]


def test_no_global_random_generator_is_used(tiny_model, tokens):
    # The legacy NumPy state is the process-wide one, which is what must not move.
    legacy = np.random.get_state
    before = torch.get_rng_state(), random.getstate(), legacy()[1].copy()
    first = generate(tiny_model, tokens)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert (legacy()[1] == before[2]).all()
    torch.rand(3)
    assert torch.equal(generate(tiny_model, tokens), first)


def test_generator_gives_one_normal_a_latent_number(tiny_model, tokens, seeded):
    generator, expected = seeded(0), seeded(0)
    tiny_model.generate(*tokens, 3.0, 2, generator, 256, 256)
    torch.randn(2, 2048, generator=expected)
    assert torch.equal(generator.get_state(), expected.get_state())


def test_model_and_inputs_are_left_as_found(fresh_model, tokens):
    ids, mask = (part.clone() for part in tokens)
    parameters = {name: value.clone() for name, value in fresh_model.state_dict().items()}
    fresh_model.train()
    fresh_model.autoencoder.eval()
    modes = [module.training for module in fresh_model.modules()]
    generate(fresh_model, tokens)
    assert [module.training for module in fresh_model.modules()] == modes
    assert torch.equal(ids, tokens[0])
    assert torch.equal(mask, tokens[1])
    assert all(torch.equal(value, parameters[name]) for name, value in fresh_model.state_dict().items())
    assert all(parameter.grad is None for parameter in fresh_model.parameters())


def test_networks_run_in_eval_mode_and_modes_come_back_after_a_failure(fresh_model, tokens, monkeypatch):
    seen = []

    def fail(latents):
        seen.append(any(module.training for module in fresh_model.modules()))
        raise RuntimeError("decode failed")

    fresh_model.train()
    monkeypatch.setattr(fresh_model.autoencoder, "decode", fail)
    with pytest.raises(RuntimeError, match="decode failed"):
        generate(fresh_model, tokens)
    assert seen == [False]
    assert all(module.training for module in fresh_model.modules())


def test_prompt_in_the_guidance_half_is_reported_as_useless(tiny_model, tokens):
    other = tiny_model.tokenizer([*PROMPTS, "a red circle", ""])
    with pytest.warns(UserWarning, match="no influence"):
        image = generate(tiny_model, other)
    assert torch.equal(image, generate(tiny_model, tokens))


def test_empty_guidance_half_is_silent(tiny_model, tokens):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        generate(tiny_model, tokens)


def test_padding_of_the_prompts_has_no_influence(tiny_model, tokens):
    padded = tiny_model.tokenizer([*PROMPTS, "", ""], max_length=16)
    assert torch.equal(generate(tiny_model, padded), generate(tiny_model, tokens))


def test_bfloat16_network_with_float32_state(tiny_bfloat16, tiny_model, tokens, monkeypatch):
    seen = []
    decode = tiny_bfloat16.autoencoder.decode
    monkeypatch.setattr(tiny_bfloat16.autoencoder, "decode", lambda x: seen.append(x.dtype) or decode(x))
    hook = tiny_bfloat16.fm_transformers.register_forward_hook(
        lambda _, inputs, v: seen.append((inputs[0].dtype, inputs[1].dtype, v.dtype))
    )
    image = generate(tiny_bfloat16, tokens, steps=2)
    hook.remove()
    assert seen == [(torch.float32, torch.float32, torch.bfloat16)] * 2 + [torch.float32]
    assert image.dtype == torch.float32
    assert (image - generate(tiny_model, tokens, steps=2)).abs().mean().item() < 0.05


IDS, MASK = build().tokenizer(["a red circle", ""])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("input_ids", IDS.float(), r"input_ids: expected int64\[B, L\], found float32\[2, 4\]"),
        ("input_ids", IDS[:1], r"attention_mask: expected the shape of input_ids \[1, 4\], found bool\[2, 4\]"),
        ("attention_mask", MASK[:, :3], r"attention_mask: expected the shape of input_ids"),
        ("attention_mask", MASK.float(), r"attention_mask: expected bool or int64 \[B, L\], found float32"),
        ("cfg_scale", float("nan"), r"cfg_scale: expected a finite number, found nan \(float\)"),
        ("cfg_scale", float("inf"), "cfg_scale: expected a finite number"),
        ("cfg_scale", "3", "cfg_scale: expected a finite number"),
        ("num_steps", 0, r"num_steps: expected a positive int, found 0 \(int\)"),
        ("num_steps", 8.0, "num_steps: expected a positive int"),
        ("generator", None, "generator: expected a torch.Generator, found None"),
        ("generator", 0, "generator: expected a torch.Generator"),
        ("height", 250, "height: expected a multiple of 32, found 250"),
        ("width", 0, "width: expected a positive int, found 0"),
    ],
)
def test_refusals_name_argument_expectation_and_finding(tiny_model, seeded, name, value, message):
    arguments = {
        "input_ids": IDS,
        "attention_mask": MASK,
        "cfg_scale": 3.0,
        "num_steps": 2,
        "generator": seeded(0),
        "height": 256,
        "width": 256,
    }
    with pytest.raises(ValueError, match=message):
        tiny_model.generate(**{**arguments, name: value})


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_rows_must_come_in_halves(tiny_model, seeded, rows):
    ids = torch.ones(rows, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"input_ids: expected (an even number of|at least one) row"):
        tiny_model.generate(ids, ids.bool(), 3.0, 2, seeded(0), 256, 256)
