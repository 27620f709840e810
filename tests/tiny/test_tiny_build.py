"""Construction: seeded, without traces in the process, and independent of the checks that judge it."""

import ast
import inspect
from pathlib import Path

import pytest
import torch

import fmcheck.tiny
from fmcheck.tiny import TinyConfig, TinyFlowModel, build

SOURCES = sorted(Path(fmcheck.tiny.__file__).parent.glob("*.py"))


def test_same_seed_same_weights_whatever_the_global_generator(tiny_model):
    torch.rand(7)
    other = build().state_dict()
    assert all(torch.equal(value, other[name]) for name, value in tiny_model.state_dict().items())


def test_another_seed_gives_other_weights(tiny_model):
    other = TinyFlowModel(TinyConfig(seed=1)).state_dict()
    assert not torch.equal(
        tiny_model.state_dict()["fm_transformers.embed.weight"], other["fm_transformers.embed.weight"]
    )


def test_construction_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    build()
    assert torch.equal(torch.get_rng_state(), before)


def test_construction_does_not_reseed_accelerators(monkeypatch):
    def refuse(seed):
        raise AssertionError("torch.manual_seed reseeds every device")

    monkeypatch.setattr(torch, "manual_seed", refuse)
    build()


def test_parts_have_the_names_others_look_for(tiny_model):
    children = dict(tiny_model.named_children())
    assert set(children) == {"text_encoder", "fm_transformers", "autoencoder", "latent_fallback"}
    assert tiny_model.tokenizer.max_length == 16
    assert not tiny_model.training


def test_float32_everywhere_by_default(tiny_model):
    assert {value.dtype for value in tiny_model.state_dict().values()} == {torch.float32}


def test_bfloat16_is_for_the_velocity_network_only(tiny_bfloat16):
    for name, value in tiny_bfloat16.state_dict().items():
        expected = torch.bfloat16 if name.startswith("fm_transformers.") else torch.float32
        assert value.dtype == expected, name


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64, "bfloat16"])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(ValueError, match=r"dtype: expected torch.float32, torch.bfloat16 or torch.float16, found"):
        build(dtype=dtype)


def test_size_stays_a_few_megabytes(tiny_model):
    assert 2 * sum(value.numel() for value in tiny_model.state_dict().values()) < 6e6


def test_no_statistics_over_rows(tiny_model):
    assert not list(tiny_model.named_buffers())
    assert not [m for m in tiny_model.modules() if isinstance(m, torch.nn.modules.batchnorm._NormBase)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text_latent": 1024}, "text_latent: expected latent_channels .* 2048, found 1024"),
        ({"downsampling": 16}, "downsampling: the autoencoder reduces by 32, found 16"),
        ({"native_size": 100}, "native_size: expected a positive multiple of 32, found 100"),
        ({"meta_queries": 7}, "meta_queries: 7 does not divide"),
        ({"text_heads": 3}, "text_heads: 3 does not divide"),
        ({"velocity_heads": 3}, "velocity_width: 128 must be a multiple"),
        ({"grid_std": 0.0}, "grid_std: expected a positive finite number, found 0.0"),
        ({"null_probability": 1.5}, r"null_probability: expected a number in \[0, 1\], found 1.5"),
        ({"vocab_size": 31}, "vocab_size: expected 30, found 31"),
    ],
)
def test_contradicting_configurations_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        TinyFlowModel(TinyConfig(**change))


def test_another_native_size_builds_and_runs(seeded):
    model = build(config=TinyConfig(native_size=64, text_latent=128, meta_queries=4))
    ids, mask = model.tokenizer(["red circle", ""])
    assert model.generate(ids, mask, 2.0, 2, seeded(0), 64, 64).shape == (1, 3, 64, 64)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_model_knows_nothing_of_the_checks(source):
    imported = []
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            assert node.module != "__future__"
            imported.append(node.module)
    assert all(name.startswith("fmcheck.tiny") for name in imported if name.startswith("fmcheck"))


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_modules_and_functions_stay_readable(source):
    text = source.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 250
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 50, node.name


def test_generate_takes_what_the_evaluation_script_passes():
    names = list(inspect.signature(TinyFlowModel.generate).parameters)[1:]
    assert names == ["input_ids", "attention_mask", "cfg_scale", "num_steps", "generator", "height", "width"]
