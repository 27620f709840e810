"""Fingerprints: what they see, what they survive, and how well they estimate a distance."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fmcheck.repro import Print, print_of, prints_of
from fmcheck.repro.digest import PROJECTIONS, compared
from fmcheck.session import Session
from fmcheck.wish import Wish
from tests.cli import toy_subject


def made(tensor: torch.Tensor) -> Print:
    found = print_of("run", "tensor", tensor)
    assert found is not None
    return found


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 4)], ids=str)
def test_of_any_dtype_and_shape(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = (noise(*shape) * 10).abs().to(dtype)
    found = made(tensor)
    assert found == made(tensor.clone())
    assert found.dtype == str(dtype).removeprefix("torch.")
    assert (found.shape, found.not_finite) == (shape, 0)
    wide = tensor.double()
    rms = wide.square().mean().sqrt().item() if tensor.numel() else 0.0
    assert found.rms == pytest.approx(rms, rel=1e-12)
    assert len(found.projections) == PROJECTIONS


def test_complex_numbers_are_pairs() -> None:
    found = made(torch.tensor([3 + 4j]))
    assert (found.shape, found.rms) == ((1,), pytest.approx(math.sqrt(12.5)))


def test_the_bits_count_and_not_their_place_in_memory() -> None:
    tensor = noise(4, 6)
    assert made(tensor) == made(tensor.t().contiguous().t()) == made(torch.stack([tensor, tensor], -1)[..., 0])
    other = tensor.clone()
    other[1, 2] = torch.nextafter(other[1, 2], torch.tensor(math.inf))
    assert made(other).digest != made(tensor).digest
    assert made(-torch.zeros(3)).digest != made(torch.zeros(3)).digest


def test_what_is_not_finite_is_counted_and_spoils_nothing() -> None:
    tensor = noise(100)
    clean = tensor.clone()
    clean[:3] = 0
    tensor[0], tensor[1], tensor[2] = math.nan, math.inf, -math.inf
    found = made(tensor)
    assert found.not_finite == 3
    assert (found.rms, found.projections) == (made(clean).rms, made(clean).projections)
    assert made(torch.full((5,), math.nan)).rms == 0


def test_large_numbers_do_not_overflow() -> None:
    found = made(torch.full((1000,), 1e300, dtype=torch.float64))
    assert found.rms == pytest.approx(1e300)
    assert all(map(math.isfinite, found.projections))


@pytest.mark.parametrize("tensor", [torch.empty(3, device="meta"), torch.eye(3).to_sparse()], ids=["meta", "sparse"])
def test_without_elements_there_is_none(tensor: torch.Tensor) -> None:
    assert print_of("run", "tensor", tensor) is None


def test_the_signs_are_those_of_every_other_machine() -> None:
    # Written down, since files are compared with fingerprints that other versions made.
    found = made(torch.arange(70_000, dtype=torch.float64))
    assert found.digest.startswith("293abaf7f4b0bb57")
    assert found.projections[:3] == pytest.approx(
        [7817.870074748927, 23397.444703558114, 2017.2871039238175], rel=1e-12
    )


@pytest.mark.parametrize("size", [1, 1000, 200_000])
def test_projections_estimate_the_distance(size: int) -> None:
    """The estimate squared over the truth squared is chi-squared with 8 degrees over 8: in [0.1, 3.3] but for 1e-3."""
    a = noise(size).double()
    for scale in (1e-6, 1e-3, 1.0):
        b = a + scale * noise(size, seed=1)
        truth = (a - b).square().mean().sqrt().item()
        assert 0.1 < (made(a).distance(made(b)) / truth) ** 2 < 3.3


@given(st.lists(st.floats(width=32), min_size=1, max_size=50))
def test_any_floats(values: list[float]) -> None:
    tensor = torch.tensor(values)
    found = made(tensor)
    assert found.distance(made(tensor)) == 0
    assert found.not_finite == (~tensor.isfinite()).sum()
    assert math.isfinite(found.rms)


class TestCompared:
    def test_identical_near_and_far(self) -> None:
        a, near, far = noise(500), noise(500) + 1e-6 * noise(500, seed=1), noise(500, seed=2)
        for other, kind in ((a, "identical"), (near, "within"), (far, "different")):
            (one,) = compared([made(a)], [made(other)], lambda p: 1e-4 * p.rms)
            assert one.kind == kind
        assert "tensor of run run: differs by 1." in str(one)
        assert "allowed 0.0001" in str(one)

    def test_without_a_bound_only_bits_will_do(self) -> None:
        a = noise(500)
        assert compared([made(a)], [made(a * (1 + 1e-6))])[0].kind == "different"

    def test_zeros_of_both_signs_are_no_distance_apart(self) -> None:
        (one,) = compared([made(torch.zeros(3))], [made(-torch.zeros(3))])
        assert (one.kind, one.ratio) == ("within", 0.0)

    @pytest.mark.parametrize(
        ("other", "said"),
        [
            (noise(2, 3), "float32[2, 3] in the replay, float32[3, 2] recorded"),
            (noise(3, 2).half(), "float16[3, 2] in the replay, float32[3, 2] recorded"),
            (torch.full((3, 2), math.nan), "with 6 elements that are not finite in the replay"),
        ],
    )
    def test_another_form(self, other: torch.Tensor, said: str) -> None:
        (one,) = compared([made(noise(3, 2))], [made(other)], lambda _: math.inf)
        assert one.kind == "different"
        assert said in str(one)

    def test_one_that_is_missing(self) -> None:
        (one,) = compared([made(noise(3))], [])
        assert (one.kind, one.reason) == ("different", "there is none in the replay")


class TestOfARun:
    def test_names_in_the_order_of_the_run(self) -> None:
        session = Session(toy_subject.subject)
        found = prints_of(session.run(session.plan.base))
        names = ["initial state", "first time", "first velocity", "last velocity", "result"]
        assert [p.name for p in found] == names
        assert {p.run for p in found} == {"base"}
        assert found[0].shape == (4, 2, 2, 3)

    def test_of_a_single_step(self) -> None:
        session = Session(toy_subject.subject)
        case = toy_subject.subject.case.but(num_steps=1)
        assert "last velocity" not in {p.name for p in prints_of(session.run(Wish("one", case)))}

    def test_of_a_run_that_crashed(self) -> None:
        session = Session(toy_subject.crashing)
        assert prints_of(session.run(session.plan.base)) == ()
