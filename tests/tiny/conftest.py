"""Fixtures of the tiny model's specification: one model for the whole session, prompts, seeded tensors."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from fmcheck.tiny import TinyConfig, TinyFlowModel, build
from tests import threads

PROMPTS = ["a large red circle on a blue background, top left", "a small green square on a black background"]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Compute on one thread: on shared cores the layers are too small for two to be anything but waiting."""
    with threads.one_thread():
        yield


@pytest.fixture(scope="session")
def tiny_model() -> TinyFlowModel:
    """The float32 model; tests must leave it as they found it."""
    return build()


@pytest.fixture(scope="session")
def tiny_bfloat16() -> TinyFlowModel:
    """The model whose velocity network is bfloat16."""
    return build(dtype=torch.bfloat16)


@pytest.fixture
def fresh_model() -> TinyFlowModel:
    """A model that a test may change."""
    return build()


@pytest.fixture
def untrained() -> TinyFlowModel:
    """The model as training finds it."""
    return build(config=TinyConfig())


@pytest.fixture(scope="session")
def tokens(tiny_model: TinyFlowModel) -> tuple[Tensor, Tensor]:
    """Evaluation-script input: two prompts, then two empty ones."""
    return tiny_model.tokenizer([*PROMPTS, "", ""])


@pytest.fixture(scope="session")
def seeded() -> Callable[[int], torch.Generator]:
    """Generator from a seed."""
    return lambda seed=0: torch.Generator().manual_seed(seed)


@pytest.fixture(scope="session")
def randn(seeded: Callable[[int], torch.Generator]) -> Callable[..., Tensor]:
    """Standard normal float32 tensor of a shape, from a seed of its own."""
    return lambda *shape, seed=0: torch.randn(shape, generator=seeded(seed), dtype=torch.float32)


@pytest.fixture(scope="session")
def assert_rows_alone(randn: Callable[..., Tensor]) -> Callable[..., None]:
    """Check that no row of ``call(x)`` sees another: all other rows become NaN, the watched row keeps its bits."""

    def check(call: Callable[[Tensor], Tensor], x: Tensor) -> None:
        expected = call(x)
        assert torch.isfinite(expected).all(), "the premise: finite rows in, finite rows out"
        for row in range(x.shape[0]):
            poisoned = torch.full_like(x, torch.nan)
            poisoned[row] = x[row]
            found = call(poisoned)[row]
            assert torch.equal(found, expected[row]), f"row {row} of {x.shape[0]} changed with its neighbours"

    return check
