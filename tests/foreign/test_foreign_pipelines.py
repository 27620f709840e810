"""The foreign pipelines are correct, shown without fmcheck's rules: they are what a checker must be silent about."""

import math

import pytest
import torch

from fmcheck import Case
from fmcheck.subject import Request
from tests.foreign.pipelines import p02_sd3, p03_flux, p06_noise, p10_video
from tests.foreign.subjects import SUBJECTS, lines_of

NAMES = list(SUBJECTS)
PROMPTS = ("a red circle, top left", "a small green square", "two yellow stars")
WITH_LOSS = [name for name, subject in SUBJECTS.items() if subject.loss is not None]


def request(subject, seed=7, **changes):
    settings = {
        "prompts": PROMPTS,
        "height": 64,
        "width": 96,
        "num_steps": 4,
        "guidance_scale": 3.0,
        "dtype": "float32",
    }
    case = Case(**settings | changes)
    return case, torch.Generator().manual_seed(seed)


def images_of(name, seed=7, prepare=None, **changes):
    subject = SUBJECTS[name]
    case, generator = request(subject, seed, **changes)
    model = subject.build(case)
    if prepare is not None:
        prepare(model)
    inputs = subject.tokenize(model, list(case.prompts)) if subject.tokenize else {}
    return subject.generate(model, Request(case, inputs, generator)).detach()


@pytest.mark.parametrize("name", NAMES)
def test_pictures_follow_from_the_generator_alone(name):
    torch.manual_seed(1)
    one = images_of(name)
    before = torch.random.get_rng_state()
    two = images_of(name)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(one, two)
    assert not torch.allclose(one, images_of(name, seed=8), atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("batch", "height", "width", "steps"), [(1, 64, 64, 1), (3, 32, 128, 2), (5, 128, 64, 3)])
def test_any_batch_size_and_number_of_steps(name, batch, height, width, steps):
    prompts = tuple(f"picture {k}" for k in range(batch))
    images = images_of(name, prompts=prompts, height=height, width=width, num_steps=steps)
    low, high = SUBJECTS[name].spec.image_range
    assert images.shape == (batch, 3, height, width)
    assert images.dtype == torch.float32
    assert images.isfinite().all()
    assert low <= images.min() <= images.max() <= high


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("change", [{"height": 68}, {"width": 100}])
def test_sizes_that_do_not_divide_are_refused(name, change):
    with pytest.raises(ValueError, match=str(*change.values())):
        images_of(name, **change)


@pytest.mark.parametrize("name", NAMES)
def test_prompts_and_scale_show_and_rows_do_not_mix(name):
    images = images_of(name)
    other = images_of(name, prompts=(PROMPTS[0], "quite another thing", PROMPTS[2]))
    kept = (images - other).abs().amax(dim=(1, 2, 3))
    assert kept[1] > 1e-3
    assert kept[[0, 2]].max() < 1e-4
    assert not torch.allclose(images, images_of(name, guidance_scale=5.0), atol=1e-4)


class Fed(Exception):
    """Carries the tensor that reached the decoder."""


def reach(model, path):
    for step in filter(None, path.split(".")):
        model = model[step] if isinstance(model, dict) else getattr(model, step)
    return model


def decoder_input(name, answer, **changes):
    """What the decoder is fed when `answer` stands in the network's place, float64 `[3, C, (1,) h, w]`."""
    network, decoder, method = PLACES[name]

    def stop(*args):
        raise Fed(args[-1])

    def prepare(model):
        reach(model, network).forward = answer
        setattr(reach(model, decoder), method, stop)

    with pytest.raises(Fed) as caught:
        images_of(name, prepare=prepare, **changes)
    return caught.value.args[0].detach().double()


V = 0.75
# The velocity network, the decoder and its method.
PLACES = {
    "crossflow": ("backbone", "codec", "decode"),
    "sd3": ("transformer", "vae.dec", "forward"),
    "flux": ("flow", "ae", "decode"),
    "functional": ("field", "pixels", "forward"),
    "data": ("net", "", "render"),
    "noise": ("eps_model", "first_stage", "forward"),
    "sampler_object": ("velocity", "ae", "decode"),
    "tokens": ("dit", "painter", "forward"),
    "interval": ("unet", "vae", "forward"),
    "video": ("transformer", "vae", "decode"),
    "wrapped": ("velocity.net", "paint.net", "forward"),
    "lists": ("transformer", "decoder", "forward"),
}
# What the network says when the velocity is V everywhere, in its own parametrization and container.
CONSTANT = {
    "sd3": lambda hidden_states, **_: (torch.full_like(hidden_states, -V),),
    "flux": lambda img, **_: torch.full_like(img, -V),
    "data": lambda z, t, *_: z + (1 - t[:, None, None, None]) * V,
    "noise": lambda z, sigma, _: {"eps": z - (1 - sigma[:, None, None, None]) * V},
    "tokens": lambda x, *_: torch.full_like(x, -V),
    "video": lambda x, *_: (torch.full_like(x, -V),),
    "lists": lambda x, *_: [torch.full_like(row, -V) for row in x],
}


def state_of(name, latent):
    """The state behind a decoder input, by the scale and the shift of the docstring."""
    spec = SUBJECTS[name].spec
    scale, shift = (torch.tensor(value, dtype=torch.float64) for value in (spec.latent_scale, spec.latent_shift))
    each_channel = (1, -1, *[1] * (latent.ndim - 2))
    return (latent - shift.reshape(each_channel)) * scale.reshape(each_channel)


def start_of(name, like):
    generator = torch.Generator().manual_seed(7)
    if name == "crossflow":
        return state_of(name, decoder_input(name, lambda x, *_: torch.zeros_like(x), num_steps=1))
    if name == "tokens":
        return torch.randn(3, 96, 8, generator=generator).mT.unflatten(2, (8, 12)).double()
    return torch.randn(like.shape, generator=generator).double()


@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("name", NAMES)
def test_a_constant_velocity_carries_the_state_its_whole_way(name, steps):
    answer = CONSTANT.get(name, lambda x, *_: torch.full_like(x, V))
    # A constant row has no deviation to keep, so the rescaled guidance is switched off.
    scale = 1.0 if name == "tokens" else 3.0
    latent = decoder_input(name, answer, num_steps=steps, guidance_scale=scale)
    if name == "tokens":
        latent = latent.movedim(-1, 1)
    torch.testing.assert_close(state_of(name, latent), start_of(name, latent) + V, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "flux"])
def test_at_the_neutral_scale_only_the_prompt_counts(name):
    """Scales a hair beside the neutral one give nearly the pictures of the neutral one: nothing jumps there."""
    neutral = SUBJECTS[name].spec.neutral_scale
    pictures = images_of(name, guidance_scale=neutral)
    limit = 0.05 if SUBJECTS[name].spec.guidance_rescale else 1e-3
    assert (pictures - images_of(name, guidance_scale=neutral + 1e-5)).abs().max() < limit


@pytest.mark.parametrize("name", WITH_LOSS)
def test_losses_are_finite_and_reach_the_network(name):
    subject = SUBJECTS[name]
    case, generator = request(subject)
    model = subject.build(case)
    inputs = subject.tokenize(model, list(case.prompts)) if subject.tokenize else {}
    images = torch.rand(3, 3, 64, 96, generator=torch.Generator().manual_seed(1)) * 2 - 1
    loss = subject.loss(model, Request(case, inputs, generator, images))
    assert loss.shape == ()
    assert loss.isfinite()
    loss.backward()
    network = getattr(model, getattr(subject.velocity, "path", subject.velocity))
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())


def test_schedules_of_the_models_that_have_one():
    scheduler = p02_sd3.FlowScheduler(shift=3.0)
    scheduler.set_timesteps(4)
    assert scheduler.sigmas[[0, -1]].tolist() == [1.0, 0.0]
    assert math.isclose(p03_flux.get_schedule(2, 16)[1], math.exp(0.5) / (math.exp(0.5) + 1))
    assert p06_noise.sigma_edges(4)[2] == pytest.approx(1 - 0.5**1.5)
    assert p10_video.VideoPipe.sigmas(4)[-2:].tolist() == pytest.approx([0.02, 0.0])
    assert p10_video.VideoPipe.sigmas(1).tolist() == [1.0, 0.0]


def test_packing_is_undone_by_unpacking():
    latent = torch.arange(2 * 4 * 4 * 6.0).reshape(2, 4, 4, 6)
    assert torch.equal(p03_flux.unpack(p03_flux.pack(latent), 32, 48), latent)


def test_lines_are_counted_as_written():
    assert all(5 < lines_of(name) <= lines_of(name, everything=True) for name in NAMES)
