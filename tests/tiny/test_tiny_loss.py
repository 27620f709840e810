"""Training path: the same autoencoder, log-SNR and null meaning as the sampler, all draws from one generator."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logit
from scipy.stats import kstest
from torch import nn

from fmcheck.tiny import build
from fmcheck.tiny.text import TextLatent

MODEL = build()
EPS = np.finfo(np.float32).eps
S_MIN = 1e-5


class Recorded(nn.Module):
    """A velocity network that answers zero and keeps its inputs."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(1, 1)
        self.calls = []

    def forward(self, x, log_snr, null_indicator):
        self.calls.append((x, log_snr, null_indicator))
        return torch.zeros_like(x)


@pytest.fixture
def batch(tiny_model, randn):
    ids, mask = tiny_model.tokenizer(["a red circle", "a blue square", "a large cross", "", "white", "green"])
    return randn(6, 3, 256, 256).tanh(), ids, mask


def test_three_finite_scalars_that_add_up(batch, seeded):
    loss, flow, kl = MODEL.training_loss(*batch, seeded(0))
    for term in (loss, flow, kl):
        assert term.shape == ()
        assert torch.isfinite(term)
        assert term.item() > 0
    torch.testing.assert_close(loss, flow + 0.03 * kl)


def test_one_call_on_the_path_against_numpy(fresh_model, batch, seeded, monkeypatch):
    images, ids, mask = batch
    t, null = torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8, 1.0]), torch.tensor([False, False, False, False, False, True])
    network = Recorded()
    fresh_model.fm_transformers = network
    monkeypatch.setattr(fresh_model, "sample_times", lambda rows, generator: t)
    monkeypatch.setattr(fresh_model, "sample_null", lambda rows, generator: null)
    found = fresh_model.training_loss(images, ids, mask, seeded(4))
    with torch.no_grad():
        x1 = MODEL.autoencoder.encode_moments(images).numpy().astype(np.float64)
        x0 = MODEL.text_encoder(ids, mask, seeded(4)).z.reshape(6, 32, 8, 8).numpy().astype(np.float64)
    time = t.numpy().astype(np.float64)[:, None, None, None]
    [(x_t, log_snr, indicator)] = network.calls
    expected = (1 - (1 - S_MIN) * time) * x0 + time * x1
    np.testing.assert_allclose(x_t.detach(), expected, rtol=0, atol=8 * 16 * EPS)
    np.testing.assert_allclose(log_snr, 4 - 8 * time.ravel(), rtol=0, atol=8 * EPS)
    assert log_snr.dtype == torch.float32
    assert torch.equal(indicator, null)
    # The answer was zero, so that the loss is the mean square of the target.
    target = x1 - (1 - S_MIN) * x0
    assert found.flow.item() == pytest.approx((target**2).mean(), rel=1e-5)


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(1, 4), w=st.integers(1, 4), seed=st.integers(0, 99))
def test_path_and_target_in_closed_form(randn, rows, w, seed):
    x0, x1 = randn(rows, 32, 2, w, seed=seed), randn(rows, 32, 2, w, seed=seed + 100)
    t = torch.rand(rows, generator=torch.Generator().manual_seed(seed))
    a, b = x0.numpy().astype(np.float64), x1.numpy().astype(np.float64)
    time = t.numpy().astype(np.float64).reshape(rows, 1, 1, 1)
    path = (1 - (1 - S_MIN) * time) * a + time * b
    np.testing.assert_allclose(MODEL.interpolate(x0, x1, t), path, rtol=0, atol=8 * 16 * EPS)
    np.testing.assert_allclose(MODEL.velocity_target(x0, x1), b - (1 - S_MIN) * a, rtol=0, atol=4 * 16 * EPS)


def test_path_starts_at_the_text_and_ends_at_the_picture(randn):
    x0, x1 = randn(2, 32, 2, 2), randn(2, 32, 2, 2, seed=1)
    assert torch.equal(MODEL.interpolate(x0, x1, torch.zeros(2)), x0)
    torch.testing.assert_close(MODEL.interpolate(x0, x1, torch.ones(2)), S_MIN * x0 + x1, rtol=0, atol=1e-6)


def test_target_is_the_derivative_of_the_path(randn):
    x0, x1 = randn(2, 32, 2, 2).double(), randn(2, 32, 2, 2, seed=1).double()
    t, step = torch.tensor([0.3, 0.6]).double(), 0.25
    slope = (MODEL.interpolate(x0, x1, t + step) - MODEL.interpolate(x0, x1, t - step)) / (2 * step)
    torch.testing.assert_close(slope, MODEL.velocity_target(x0, x1))


def test_times_are_logit_normal(seeded):
    t = MODEL.sample_times(4000, seeded(0))
    assert t.shape == (4000,)
    assert t.dtype == torch.float32
    assert (t > 0).all()
    assert (t < 1).all()
    # The seed is fixed, hence so is the verdict.
    assert kstest(logit(t.double().numpy()), "norm").pvalue > 0.01


def test_a_tenth_of_the_rows_is_null(seeded):
    null = MODEL.sample_null(10_000, seeded(0))
    # Four standard deviations of a binomial share.
    assert null.dtype == torch.bool
    assert abs(null.double().mean().item() - 0.1) < 4 * (0.09 / 10_000) ** 0.5


@settings(max_examples=25, deadline=None)
@given(null=st.lists(st.booleans(), min_size=1, max_size=8), seed=st.integers(0, 50))
def test_targets_move_only_among_the_null_rows(null, seed):
    flags = torch.tensor(null)
    x1 = torch.arange(len(null), dtype=torch.float32)[:, None, None, None].expand(-1, 2, 1, 1)
    moved = MODEL.permute_null_targets(x1, flags, torch.Generator().manual_seed(seed))
    assert torch.equal(moved[~flags], x1[~flags])
    assert sorted(moved[flags][:, 0].flatten().tolist()) == x1[flags][:, 0].flatten().tolist()
    assert torch.equal(moved[:, 0], moved[:, 1])


def test_null_targets_really_move():
    x1, flags = torch.arange(8.0)[:, None, None, None], torch.ones(8, dtype=torch.bool)
    orders = {
        tuple(MODEL.permute_null_targets(x1, flags, torch.Generator().manual_seed(seed)).flatten().tolist())
        for seed in range(5)
    }
    assert len(orders) == 5


def test_kl_by_hand():
    latent = TextLatent(torch.zeros(1, 2), torch.tensor([[0.0, 2.0]]), torch.tensor([[0.0, np.log(0.25)]]))
    assert MODEL.kl_divergence(latent).item() == pytest.approx(0.5 * (4 + 0.25 - 1 - np.log(0.25)) / 2, rel=1e-6)


def test_gradients_reach_text_and_velocity_but_not_the_autoencoder(fresh_model, batch, seeded):
    # One row in ten is null, and both rows of that embedding should learn.
    null = torch.tensor([True, False] * 3)
    fresh_model.sample_null = lambda rows, generator: null
    fresh_model.training_loss(*batch, seeded(0)).loss.backward()
    for name, parameter in fresh_model.named_parameters():
        outside = name.startswith(("autoencoder.", "latent_fallback."))
        assert (parameter.grad is None) == outside, name
        assert outside or torch.isfinite(parameter.grad).all(), name
    assert (fresh_model.fm_transformers.null.weight.grad.abs().sum(1) > 0).all()


def test_a_few_steps_lower_the_loss(untrained, batch, seeded):
    images, ids, mask = (part[:2] for part in batch)
    optimiser = torch.optim.Adam(untrained.fm_transformers.parameters(), lr=2e-3)
    losses = []
    for _ in range(8):
        optimiser.zero_grad()
        terms = untrained.training_loss(images, ids, mask, seeded(1))
        terms.loss.backward()
        optimiser.step()
        losses.append(terms.flow.item())
    assert losses[-1] < 0.8 * losses[0]


def test_all_randomness_is_the_generators(batch, seeded):
    before = torch.get_rng_state()
    first = MODEL.training_loss(*batch, seeded(2)).loss
    torch.rand(5)
    assert torch.equal(first, MODEL.training_loss(*batch, seeded(2)).loss)
    assert not torch.equal(first, MODEL.training_loss(*batch, seeded(3)).loss)
    torch.set_rng_state(before)
    MODEL.training_loss(*batch, seeded(2))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.filterwarnings("ignore:the text latent")
def test_other_sizes_and_bfloat16(tiny_bfloat16, batch, seeded):
    images, ids, mask = batch
    terms = tiny_bfloat16.training_loss(images[:1, :, :64, :96], ids[:1], mask[:1], seeded(0))
    assert terms.loss.dtype == torch.float32
    assert torch.isfinite(terms.loss)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.zeros(2, 3, 256, 256)}, r"images: expected shape \[6, 3, \*, \*\], found float32\[2, 3"),
        ({"images": torch.zeros(6, 3, 250, 256)}, "image: expected height and width to be multiples of 32"),
        ({"input_ids": torch.zeros(6, 4)}, "input_ids: expected int64"),
        ({"generator": None}, "generator: expected a torch.Generator"),
    ],
)
def test_refusals_name_the_argument(batch, seeded, change, message):
    images, ids, mask = batch
    arguments = {"images": images, "input_ids": ids, "attention_mask": mask, "generator": seeded(0)}
    with pytest.raises(ValueError, match=message):
        MODEL.training_loss(**{**arguments, **change})
