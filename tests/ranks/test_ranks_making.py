"""One rank's share of a run, made in this process: what is kept of a recording, and what `generate_rank` may return."""

from typing import Any

import pytest
import torch

from fmcheck.errors import DeclarationError
from fmcheck.ranks.making import dealt, share_of, starts_of
from fmcheck.ranks.share import PROMPTS, Share, packed, unpacked
from fmcheck.record.trace import Call, Trace
from fmcheck.spec import FlowSpec
from fmcheck.wish import Wish
from tests.ranks import toy_rank_subject as toys

CASE = toys.clean.case.with_batch(3).but(num_steps=2)
PART = Wish("ranks", CASE, "part", disturb_rng=1, ranks=2)
PICTURE = torch.ones(3, 2, 2)


@pytest.mark.parametrize(
    ("images", "shape"),
    [
        (torch.ones(2, 3, 2, 2), (2, 3, 2, 2)),
        ([PICTURE, PICTURE], (2, 3, 2, 2)),
        ([PICTURE[None], torch.ones(1, 3, 2, 2)], (2, 3, 2, 2)),
        ((PICTURE.requires_grad_(), PICTURE), (2, 3, 2, 2)),
        ([], (0,)),
        (None, (0,)),
    ],
)
def test_pictures_may_be_one_tensor_or_several(images: Any, shape: tuple[int, ...]) -> None:
    found, _ = dealt((images, []), "mine")
    assert found.shape == shape
    assert not found.requires_grad


@pytest.mark.parametrize("indices", [[4, 0], (4, 0), torch.tensor([4, 0]), iter([4, 0])])
def test_indices_may_be_any_integers(indices: Any) -> None:
    assert dealt((torch.ones(2, 3, 2, 2), indices), "mine")[1] == (4, 0)


@pytest.mark.parametrize("returned", [None, PICTURE, (PICTURE,), {0: PICTURE}, (torch.ones(1), 3), (3, [0]), (1, 2, 3)])
def test_anything_else_is_a_wrong_declaration(returned: Any) -> None:
    with pytest.raises(DeclarationError, match="subject 'mine': generate_rank must return a pair: images"):
        dealt(returned, "mine")


def test_a_share_holds_what_the_rank_made() -> None:
    model = toys.clean.build(CASE)
    first, second = (share_of(toys.clean, model, PART, rank) for rank in (0, 1))
    assert (first.indices, second.indices) == ((0, 2), (1,))
    assert (first.error, second.error) == ("", "")
    # Both branches of guidance, two samples and one; the toy's latents are 2 x 2 x 3.
    assert first.starts is not None
    assert first.starts.shape == (4, 2, 2, 3)
    assert second.starts is not None
    assert torch.equal(second.starts[0], torch.randn(1, 2, 2, 3, generator=torch.Generator().manual_seed(1))[0])
    assert second.shapes == ("velocity[2,2,2,3][2][2]",) * 2
    assert second.sources == ()
    assert second.images is not None
    assert second.images.shape == (1, 3, 16, 24)


def test_an_exception_is_noted_and_its_time() -> None:
    subject = toys.clean.but(generate_rank=lambda *_: {}["prompt"])
    share = share_of(subject, subject.build(CASE), PART, 1)
    assert (share.rank, share.error, share.exhausted) == (1, "KeyError: 'prompt'", False)
    assert share.ended > 1.7e9
    assert share.images is share.starts is None


def test_no_memory_is_told_apart() -> None:
    share = share_of(toys.exhausted, toys.exhausted.build(CASE), PART, 0)
    assert share.exhausted


def test_a_whole_call_is_no_part() -> None:
    share = share_of(toys.clean, toys.clean.build(CASE), Wish("unsharded", CASE, ranks=1), 0)
    assert share.indices == ()
    assert share.images is not None
    assert len(share.images) == CASE.batch
    assert share.velocity is not None
    assert share.velocity.shape == (2 * CASE.batch, 2, 2, 3)
    assert share.last_state is not None
    assert not torch.equal(share.last_state, share.starts)


def _trace(*calls: tuple[Any, Any]) -> Trace:
    trace = Trace(CASE)
    trace.calls += [Call("velocity", n, {"x": x, "time": time}) for n, (x, time) in enumerate(calls)]
    return trace


def test_flows_start_where_the_first_time_comes_again() -> None:
    early, late = torch.tensor([4.0]), torch.tensor([0.0])
    states = torch.arange(5.0).reshape(5, 1, 1)
    trace = _trace((states[:2], early), (states[2:3], late), (states[3:4], early), (states[4:], late))
    found = starts_of(trace, FlowSpec())
    assert found is not None
    assert found.flatten().tolist() == [0.0, 1.0, 3.0]


@pytest.mark.parametrize(
    "calls",
    [
        [],
        [(None, torch.zeros(1))],
        [(torch.ones(2, 1), None)],
        [(torch.ones(2, 1), torch.zeros(3))],
        [(torch.ones(1, 1), torch.zeros(1)), (torch.ones(1, 2), torch.zeros(1))],
    ],
)
def test_what_cannot_be_read_is_left_out(calls: list[tuple[Any, Any]]) -> None:
    assert starts_of(_trace(*calls), FlowSpec()) is None


def test_a_share_survives_the_way_through_a_file(tmp_path: Any) -> None:
    path = tmp_path / "share.safetensors"
    share = Share(
        rank=1, images=torch.ones(2, 3).t(), velocity=torch.ones(2, dtype=torch.bfloat16), shapes=("velocity[2]",)
    )
    rest = packed(share, path)
    assert rest.images is rest.velocity is None
    whole = unpacked(rest, path)
    assert torch.equal(whole.images, share.images)
    assert whole.velocity.dtype == torch.bfloat16
    assert (whole.rank, whole.shapes, whole.starts) == (1, ("velocity[2]",), None)
    assert not path.exists()


def test_no_usual_number_of_ranks_divides_the_prompts_or_is_left_without() -> None:
    for ranks in range(2, PROMPTS):
        assert PROMPTS % ranks
    for ranks in range(2, 5):
        size = -(-PROMPTS // ranks)
        assert all(len(range(rank * size, min(PROMPTS, (rank + 1) * size))) for rank in range(ranks))
