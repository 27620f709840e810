"""The weights in the package: whole, small, of the right shapes, and never anything but numbers."""

import pytest
import torch

from fmcheck.tiny import TinyConfig, build, trained
from fmcheck.tiny.trained import card, load_trained, save_trained


@pytest.fixture
def folder(tiny_model, tmp_path):
    """A folder with weights and card of the model that the package has."""
    save_trained(tiny_model, {"licence": "MIT"}, tmp_path)
    return tmp_path


def test_the_package_has_them():
    about = card()
    assert (trained.FOLDER / "tiny.safetensors").stat().st_size == about["bytes"] <= 5_000_000
    assert "MIT" in about["licence"]
    assert {"command", "torch", "device", "seed"} <= about["trained"].keys()


def test_a_model_is_trained_unless_it_has_a_config():
    one, other = build(), build(config=TinyConfig())
    assert not torch.equal(one.fm_transformers.embed.weight, other.fm_transformers.embed.weight)


def test_loading_gives_the_saved_numbers(tiny_model, folder):
    model = build(config=TinyConfig(seed=3))
    load_trained(model, folder)
    expected = tiny_model.state_dict()
    # The package's own are half precision already, so nothing is rounded a second time.
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


def test_one_changed_byte_is_noticed(folder):
    path = folder / "tiny.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="expected the SHA-256 of its card"):
        load_trained(build(config=TinyConfig()), folder)


def test_missing_files_are_named(folder):
    (folder / "tiny.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="no weights at"):
        load_trained(build(config=TinyConfig()), folder)
    with pytest.raises(FileNotFoundError, match="no card at"):
        load_trained(build(config=TinyConfig()), folder / "nowhere")


def test_a_card_that_is_no_toml(tmp_path):
    (tmp_path / "card.toml").write_text("sha256: 3")
    with pytest.raises(ValueError, match="expected TOML"):
        card(tmp_path)


def test_a_number_beyond_half_precision_is_refused(tmp_path):
    model = build(config=TinyConfig())
    with torch.no_grad():
        model.latent_fallback.weight[0, 0] = 1e6
    with pytest.raises(ValueError, match=r"latent_fallback.weight: expected numbers within float16"):
        save_trained(model, {}, tmp_path)
    assert not list(tmp_path.iterdir())


def test_new_weights_are_loaded_though_others_were_read_before(tiny_model, folder):
    load_trained(build(config=TinyConfig()), folder)
    other = build(config=TinyConfig(seed=3))
    save_trained(other, {"licence": "other"}, folder)
    model = build(config=TinyConfig())
    load_trained(model, folder)
    torch.testing.assert_close(model.state_dict(), other.state_dict(), atol=1e-3, rtol=1e-3)
    assert card(folder)["licence"] == "other"
    assert sorted(path.name for path in folder.iterdir()) == ["card.toml", "tiny.safetensors"]


def test_rounding_first_gives_what_the_file_gives(tmp_path):
    model, other = build(config=TinyConfig(seed=3)), build(config=TinyConfig())
    trained.in_half_precision(model)
    save_trained(model, {}, tmp_path)
    load_trained(other, tmp_path)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())
