"""FM843 on shares made by hand: what a sharded network may differ by, and the known ways to do it wrong."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from fmcheck.outcome import Outcome
from fmcheck.ranks.share import Share
from fmcheck.tolerance.ranks import split_bound
from tests.rules.rank_runs import PICTURES, STATES, causes, rounded, run_of, verdict

VELOCITY = torch.randn(14, 4, 2, 2, generator=torch.Generator().manual_seed(4))
WHOLE: dict[str, Any] = {"images": PICTURES, "starts": STATES, "velocity": VELOCITY, "last_state": STATES.flip(0)}


def judged(*ranks: dict[str, Any], whole: dict[str, Any] | None = None) -> Outcome:
    """The verdict on ranks whose tensors are those of one process but for the given ones."""
    shares = (Share(rank=rank, **{**WHOLE, **changes}) for rank, changes in enumerate(ranks))
    one = run_of(Share(rank=0, **{**WHOLE, **(whole or {})}), name="unsharded", kind="generate")
    return verdict("FM843", {"whole": one, "sharded": run_of(*shares, name="sharded", kind="shard")})


def velocities(*of_ranks: Tensor) -> Outcome:
    return judged(*({"velocity": velocity} for velocity in of_ranks))


def test_the_same_bits() -> None:
    outcome = judged({}, {})
    assert (outcome.status, outcome.checks, outcome.ratio) == ("passed", 9, 0.0)
    assert outcome.measured == ("velocity of the network sharded over 2 ranks: that of one process, bit for bit",)


def test_rounding_is_allowed_and_reported() -> None:
    outcome = velocities(rounded(VELOCITY, 1e-6), VELOCITY)
    assert outcome.status == "passed"
    assert outcome.ratio is not None
    assert 0 < outcome.ratio < 0.01
    assert "that of one process, within" in outcome.measured[0]


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda v, n, r: v / n, "what should be added over the ranks is averaged"),
        (lambda v, n, r: v * n, "what is whole on every rank is added over the ranks"),
        (lambda v, n, r: v * (2 * r + 1) / n**2, "the partial sums of the last layer are not reduced"),
        (lambda v, n, r: v * (1 + 0.01 * (r == 1)), "only rank 1 differs"),
        (lambda v, n, r: v.roll(r + 1, 0), "the ranks disagree"),
        (lambda v, n, r: v.roll(1, 0), "the ranks agree"),
    ],
)
def test_known_mistakes(ranks: int, change: Any, cause: str) -> None:
    outcome = velocities(*(change(VELOCITY, ranks, rank) for rank in range(ranks)))
    assert outcome.status == "failed"
    assert cause in causes(outcome).pop()


def test_a_shorter_dtype_is_named() -> None:
    outcome = judged(*({"velocity": VELOCITY.bfloat16(), "starts": STATES.bfloat16()} for _ in range(2)))
    assert "the sharded network computes in bfloat16" in " ".join(causes(outcome))


def test_other_noise_is_not_blamed_on_the_network() -> None:
    other = {"starts": STATES.flip(1), "velocity": VELOCITY.flip(1), "images": PICTURES.flip(1)}
    outcome = judged({}, other)
    assert [finding.where for finding in outcome.findings] == ["rank 1"] * 3
    assert [str(finding.diagnosis) for finding in outcome.findings] == [
        "the ranks draw noise of their own, from a generator that is not the request's",
        *["follows from the states at which the flow begins"] * 2,
    ]


def test_what_goes_wrong_behind_the_first_velocity() -> None:
    outcome = judged({"images": PICTURES.flip(0)}, {})
    assert "the first velocity is right" in causes(outcome).pop()


def test_nan_and_other_shapes_fail() -> None:
    assert velocities(VELOCITY * math.nan, VELOCITY).status == "failed"
    assert velocities(VELOCITY[:7], VELOCITY).status == "failed"
    assert judged({"images": None}, {}).status == "failed"


def test_a_rank_that_fails() -> None:
    one = run_of(Share(rank=0, **WHOLE), name="unsharded", kind="generate")
    failed = Share(rank=1, error="shard raised ValueError: 3 ranks for 4 heads", ended=1.0)
    runs = {"whole": one, "sharded": run_of(Share(rank=0, **WHOLE), failed, kind="shard")}
    (finding,) = verdict("FM843", runs).findings
    assert "the sharded network does not run on 2 ranks: rank 1 of 2: shard raised ValueError" in finding.message


def test_zeros_say_nothing() -> None:
    outcome = judged({}, {}, whole={"velocity": torch.zeros_like(VELOCITY)})
    assert (outcome.status, outcome.reason) == (
        "not informative",
        "every velocity is zero, so sharding has nothing to change",
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ranks", [2, 4, 8])
@pytest.mark.parametrize("products", [64, 4096])
def test_split_sums_are_far_within_the_bound_and_lost_ones_far_outside(
    products: int, ranks: int, dtype: torch.dtype
) -> None:
    """Partial products in their own dtype against the sum of all; the truth is in float64."""
    generator = torch.Generator().manual_seed(products)
    a = torch.randn(32, products, generator=generator, dtype=torch.float64).to(dtype)
    b = torch.randn(products, 32, generator=generator, dtype=torch.float64).to(dtype)
    whole = (a @ b).double()
    parts = [x @ y for x, y in zip(a.chunk(ranks, 1), b.chunk(ranks), strict=True)]
    total = parts[0]
    for partial in parts[1:]:
        total = total + partial
    allowed = split_bound(torch.finfo(dtype).eps, passes=1)
    assert float((total.double() - whole).norm() / whole.norm()) < 0.1 * allowed
    for lost in (parts[0], total / ranks):
        assert float((lost.double() - whole).norm() / whole.norm()) > 5 * allowed


def test_the_bound_is_the_square_root_of_eps_a_pass() -> None:
    assert split_bound(2.0**-23, passes=1) == pytest.approx(3.4526698e-4)
    # w = 2.5 collects (3.5 + 2.5) velocities, and one rounding an update.
    assert split_bound(2.0**-23, passes=1, weight=2.5, collected=True, calls=4) == pytest.approx(
        7 * 3.4526698e-4 + 4 * 2.0**-23
    )
