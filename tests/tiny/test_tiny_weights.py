"""Weights files: all or nothing, finite numbers under the expected names, never anything executed."""

import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from fmcheck.tiny import TinyConfig, TinyFlowModel, build, load_weights, save_weights


@pytest.fixture(scope="module")
def other():
    """A model with other numbers than the one that is saved."""
    return build(config=TinyConfig(seed=1))


@pytest.fixture
def saved(tiny_model, tmp_path):
    path = tmp_path / "tiny.safetensors"
    save_weights(tiny_model, path)
    return path


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_round_trip_is_exact(tiny_model, fresh_model, saved):
    with torch.no_grad():
        for parameter in fresh_model.parameters():
            parameter.fill_(1.0)
    load_weights(fresh_model, str(saved))
    assert same(state(fresh_model), state(tiny_model))


def test_loading_into_a_bfloat16_network_converts(tiny_bfloat16, tiny_model, saved):
    load_weights(tiny_bfloat16, saved)
    for name, value in tiny_bfloat16.state_dict().items():
        assert torch.equal(value, tiny_model.state_dict()[name].to(value.dtype))


def test_half_precision_files_load_as_float32(tiny_model, fresh_model, tmp_path):
    path = tmp_path / "half.safetensors"
    save_file({name: value.half().contiguous() for name, value in tiny_model.state_dict().items()}, path)
    load_weights(fresh_model, path)
    assert all(torch.equal(v, tiny_model.state_dict()[n].half().float()) for n, v in fresh_model.state_dict().items())


def damage(tensors, name, kind):
    if kind == "missing":
        del tensors[name]
    elif kind == "unknown":
        tensors["surplus"] = torch.zeros(1)
    elif kind == "shape":
        tensors[name] = tensors[name][:-1].contiguous()
    elif kind == "integers":
        tensors[name] = tensors[name].long()
    elif kind == "nan":
        tensors[name].view(-1)[3] = torch.nan
    elif kind == "overflow":
        tensors[name] = torch.full_like(tensors[name], 1e300, dtype=torch.float64)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", r"names differ .* missing \['latent_fallback.weight'\]"),
        ("unknown", r"names differ .* unknown \['surplus'\]"),
        ("shape", r"latent_fallback.weight: expected shape \[32, 32\], found \[31, 32\]"),
        ("integers", "latent_fallback.weight: expected floating numbers, found torch.int64"),
        ("nan", "latent_fallback.weight: expected finite values"),
        ("overflow", "latent_fallback.weight: expected finite values"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_and_changes_nothing(other, saved, kind, message):
    before = state(other)
    tensors = load_file(saved)
    damage(tensors, "latent_fallback.weight", kind)
    save_file(tensors, saved)
    with pytest.raises(ValueError, match=message):
        load_weights(other, saved)
    assert same(state(other), before)


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_a_truncated_file_is_refused(other, saved, keep):
    before = state(other)
    saved.write_bytes(saved.read_bytes()[:keep])
    with pytest.raises(ValueError, match="expected a safetensors file"):
        load_weights(other, saved)
    assert same(state(other), before)


class Bomb:
    """Would call ``fail`` when unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("the file was unpickled",))


def test_a_pickle_is_refused_unread(other, tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="expected a safetensors file"):
        load_weights(other, path)


def test_a_missing_file_is_called_missing(other, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.safetensors"):
        load_weights(other, tmp_path / "nowhere.safetensors")


def test_a_model_with_nan_is_not_saved(tmp_path):
    model = TinyFlowModel()
    with torch.no_grad():
        model.latent_fallback.bias[0] = torch.nan
    with pytest.raises(ValueError, match=r"latent_fallback.bias: expected finite values"):
        save_weights(model, tmp_path / "bad.safetensors")
    assert not (tmp_path / "bad.safetensors").exists()
