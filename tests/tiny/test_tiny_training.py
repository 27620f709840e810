"""Training: the same weights from the same seed, however often it was killed, and nothing left behind."""

import json
import math
from statistics import NormalDist

import pytest
import torch

from fmcheck.tiny import TinyFlowModel
from fmcheck.tiny.training import Recipe, loop, run, train
from fmcheck.tiny.training.checkpoint import read_checkpoint, write_checkpoint
from fmcheck.tiny.training.decoder import flowed
from fmcheck.tiny.training.stages import latents

SHORT = Recipe(autoencoder_steps=4, text_steps=3, velocity_steps=4, decoder_steps=3, pictures=8, flowed_pictures=4, crops=2, whole=1, text_batch=3, velocity_batch=3)  # fmt: skip  # noqa: E501


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A whole training, its folder and the steps that it announced."""
    folder, steps = tmp_path_factory.mktemp("training"), []
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    model = train(folder, recipe=SHORT, on_step=lambda *step: steps.append(step[:3]))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.get_num_threads() == threads
    return weights(model), folder, steps


def test_every_step_is_announced(finished):
    _, _, steps = finished
    expected = [("autoencoder", 4), ("text", 3), ("velocity", 4), ("decoder", 3)]
    assert steps == [(name, done, count) for name, count in expected for done in range(1, count + 1)]


def test_the_log_has_the_losses(finished):
    lines = [json.loads(line) for line in (finished[1] / "train.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in lines] == [
        stage for stage in ("autoencoder", "text", "velocity", "decoder") for _ in range(2)
    ]
    assert all(line["loss"] > 0 for line in lines)
    assert {"mse", "power"} <= lines[0].keys()
    assert {"error", "kl", "sigma"} <= lines[2].keys()


def test_everything_but_the_fallback_was_trained(finished):
    start = TinyFlowModel().state_dict()
    alike = {name for name, value in finished[0].items() if torch.equal(value, start[name])}
    # A flag that no row of so small a batch had is not trained either.
    assert {name.split(".")[0] for name in alike} <= {"latent_fallback", "fm_transformers", "text_encoder"}
    assert not {name for name in alike if name.startswith("autoencoder.")}


@pytest.mark.parametrize("stage", ["autoencoder", "text", "velocity", "decoder"])
def test_a_killed_training_goes_on_to_the_same_weights(finished, stage, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)

    def kill(name, done, steps, loss):
        if (name, done) == (stage, 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, recipe=SHORT, on_step=kill)
    assert (tmp_path / f"{stage}-running.safetensors").is_file()
    announced = []
    model = train(tmp_path, recipe=SHORT, on_step=lambda *step: announced.append(step[:2]))
    assert same(weights(model), finished[0])
    assert (stage, 2) not in announced, "what was done is not done again"
    assert not list(tmp_path.glob("*-running*"))


def test_a_finished_training_is_loaded(finished):
    announced = []
    model = train(finished[1], recipe=SHORT, on_step=lambda *step: announced.append(step[:2]))
    assert same(weights(model), finished[0])
    assert announced == [("autoencoder", 4), ("text", 3), ("velocity", 4), ("decoder", 3)]


def test_files_of_another_training_are_refused(finished):
    with pytest.raises(ValueError, match="made by another training; give another folder"):
        train(finished[1], recipe=SHORT, seed=1)


def test_a_checkpoint_of_another_training_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)

    def kill(name, done, steps, loss):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, recipe=SHORT, on_step=kill)
    with pytest.raises(ValueError, match=r"another training \(different: seed\)"):
        train(tmp_path, recipe=SHORT, seed=1)


def test_a_loss_that_is_no_number_ends_it(tmp_path):
    module = torch.nn.Linear(2, 1)
    stage = loop.Stage("broken", module, 3, 1e-3, lambda _: (module.weight.sum() * float("nan"), {}))
    with pytest.raises(FloatingPointError, match="broken, step 0: the loss is nan"):
        loop.fit(stage, 0, tmp_path, {}, lambda *_: None)


def test_the_rate_rises_and_falls():
    assert loop.rate(0, 1000) == pytest.approx(1 / loop.WARM_UP, rel=1e-3)
    assert loop.rate(500, 1000) == pytest.approx(0.5)
    assert loop.rate(999, 1000) < 1e-5


def test_the_average_ends_in_the_module(tmp_path):
    """After one step it is a tenth of the start and nine tenths of where the step led; a short memory at first."""
    module = torch.nn.Linear(1, 1, bias=False)
    start, reached = module.weight.item(), []
    stage = loop.Stage("average", module, 1, 1e-2, lambda _: (module.weight.sum(), {}))
    loop.fit(stage, 0, tmp_path, {}, lambda *_: reached.append(module.weight.item()))
    assert reached[0] < start, "the loss was followed down"
    assert module.weight.item() == pytest.approx(0.1 * start + 0.9 * reached[0], rel=1e-6)


def test_latents_are_those_of_the_first_training_pictures(tiny_model):
    from fmcheck.tiny.render import render
    from fmcheck.tiny.scenes import example

    found = latents(tiny_model.autoencoder, 3, 256, torch.device("cpu"))
    with torch.no_grad():
        expected = tiny_model.autoencoder.encode_moments(render([example("train", 2)[1]], 256, 256))
    torch.testing.assert_close(found[2:], expected)


@pytest.fixture
def along_a_line(monkeypatch):
    """A model whose flow starts at 0 and moves by one in every number, whatever is asked."""
    model = TinyFlowModel()
    monkeypatch.setattr(model, "initial_state", lambda z, height, width: torch.zeros(len(z), 32, 8, 8))
    monkeypatch.setattr(model, "velocities", lambda x, t, guided: (torch.ones_like(x), torch.ones_like(x)))
    return model


def test_a_right_flow_ends_at_the_latent_from_every_edge(along_a_line):
    found = flowed(along_a_line, torch.ones(150, 32, 8, 8), seed=0)
    torch.testing.assert_close(found, torch.ones(150, 32, 8, 8), atol=1e-6, rtol=0)


def test_what_the_flow_makes_wrong_is_in_its_ends(along_a_line):
    """Latents of 3 and a velocity of 1: from the edge t the end is 3 t + (1 - t)."""
    found = flowed(along_a_line, torch.full((300, 32, 8, 8), 3.0), seed=0)
    starts = {round(float((row.mean() - 1) / 2), 4) for row in found[::64]}
    assert len(starts) > 1, "another edge in every batch"
    edges = {round(1 / (1 + math.exp(-NormalDist().inv_cdf(k / 8))), 4) for k in range(1, 8)}
    assert starts <= edges


def test_the_decoder_stage_leaves_the_rest_as_it_is(finished):
    """What text and velocity learned is about the latents of the encoder, as it was after the first stage."""
    groups, _ = read_checkpoint(finished[1] / "autoencoder.safetensors")
    for name, value in groups["weights"].items():
        kept = name.startswith(("encoder.", "to_latent."))
        assert torch.equal(finished[0][f"autoencoder.{name}"], value) == kept, name


def test_a_checkpoint_is_read_as_written(tmp_path):
    groups = {"a": {"x.y": torch.arange(3), "z": torch.tensor(2.5)}, "b": {"x": torch.zeros(0)}}
    path = tmp_path / "one.safetensors"
    write_checkpoint(path, groups, {"seed": 3})
    read, about = read_checkpoint(path)
    assert about == {"seed": 3}
    assert {g: {n: v.tolist() for n, v in named.items()} for g, named in read.items()} == {
        "a": {"x.y": [0, 1, 2], "z": 2.5},
        "b": {"x": []},
    }
    assert [file.name for file in tmp_path.iterdir()] == ["one.safetensors"]


def test_another_file_is_no_checkpoint(tmp_path):
    path = tmp_path / "one.safetensors"
    path.write_text("hello")
    with pytest.raises(ValueError, match="expected a checkpoint of this training"):
        read_checkpoint(path)


def test_a_recipe_without_steps_or_with_parts_of_cells_is_refused():
    with pytest.raises(ValueError, match="text_steps: expected a positive number, found 0"):
        Recipe(text_steps=0)
    with pytest.raises(ValueError, match="crop: expected a multiple of 32"):
        Recipe(crop=100)


@pytest.mark.parametrize("seed", [0, 20250903, 2**62])
def test_every_seed_gives_its_own_numbers(seed):
    draws = {float(torch.rand((), generator=loop.generator_of(seed + k, "text", 0))) for k in range(3)}
    assert len(draws) == 3


def test_a_stage_that_cannot_be_written_is_not_trained_again(finished, tmp_path, monkeypatch):
    """The disk is full when a stage is done: its checkpoint is still there."""
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)

    def full(path, groups, about):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(run, "write_checkpoint", full)
        with pytest.raises(OSError, match="no space left"):
            train(tmp_path, recipe=SHORT)
    announced = []
    model = train(tmp_path, recipe=SHORT, on_step=lambda *step: announced.append(step[:2]))
    assert same(weights(model), finished[0])
    assert announced[0] == ("text", 1)
