"""One strategy for each axis of a case, and the domain that bounds them."""

import math
from dataclasses import dataclass, replace

from hypothesis import strategies as st

from fmcheck.errors import DeclarationError
from fmcheck.spec import FlowSpec
from fmcheck.subject import Subject
from fmcheck.values import is_count, is_range

__all__ = [
    "Domain",
    "batch_sizes",
    "guidance_scales",
    "invalid_sizes",
    "prompt_lists",
    "seeds",
    "sizes",
    "step_counts",
]

Size = tuple[int, int]

_USUAL_STEPS, _USUAL_BATCH = 12, 6
# What defaults, thresholds and half precision make special: 65504 is the largest float16.
# Off and the plain conditional velocity's double are where code branches, so they come more often.
_WEIGHTS = (
    0.0,
    0.0,
    0.0,
    0.0,
    1.0,
    1.0,
    2.0,
    0.5,
    3.0,
    4.5,
    6.0,
    7.5,
    0.0625,
    -0.5,
    -1.0,
    -3.0,
    30.0,
    100.0,
    1000.0,
    65504.0,
    7e4,
    1e5,
)
_PROMPT_KINDS = ("native", "equal", "some empty", "one length", "long", "cut")
_SEEDS = (0, 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1)


@dataclass(frozen=True, kw_only=True)
class Domain:
    """What a subject can be asked for, and what one example may cost.

    Attributes:
        budget: of one example, in `pixels x steps x batch`; None is twice the cost of the native case.
        max_batch: prompts of one call.
        max_steps: `K` of one call.
        max_side: longest side in pixels; None is four times the longer side of the native case.
        weights: smallest and largest guidance weight `w` in `v = (1 + w) c - w u`.

    Raises:
        DeclarationError: a count below 1, or weights that are no pair of a smaller and a larger number.
    """

    budget: int | None = None
    max_batch: int = 17
    max_steps: int = 50
    max_side: int | None = None
    weights: tuple[float, float] = (-10.0, 1e5)

    def __post_init__(self) -> None:
        if isinstance(self.weights, list):
            object.__setattr__(self, "weights", tuple(self.weights))
        for name in ("budget", "max_batch", "max_steps", "max_side"):
            value = getattr(self, name)
            optional = name in ("budget", "max_side") and value is None
            if not optional and not is_count(value):
                raise DeclarationError(f"Domain.{name}: expected a positive integer; found {value!r}")
        if not is_range(self.weights):
            raise DeclarationError(f"Domain.weights: expected a pair (low, high), low < high; found {self.weights!r}")

    def of(self, subject: Subject) -> "Domain":
        """The domain with its open ends filled in from a subject's native case."""
        case, multiple = subject.case, subject.spec.multiple
        cost = 2 * case.height * case.width * case.num_steps * case.batch
        return replace(
            self,
            budget=max(self.budget or cost, multiple**2),
            max_side=max(self.max_side or 4 * max(case.height, case.width), multiple),
        )


def batch_sizes(max_value: int = 17) -> st.SearchStrategy[int]:
    """`B`: mostly up to 6, sometimes as many as allowed."""
    return st.integers(1, min(_USUAL_BATCH, max_value)) | st.integers(1, max_value)


def step_counts(max_value: int = 50) -> st.SearchStrategy[int]:
    """`K`, 1 included: mostly up to 12, sometimes as many as allowed."""
    return st.integers(1, min(_USUAL_STEPS, max_value)) | st.integers(1, max_value)


def guidance_scales(spec: FlowSpec, weights: tuple[float, float] = (-10.0, 1e5)) -> st.SearchStrategy[float]:
    """Scales in the spec's own convention: off, fractions, negative, not round, as large as float16 and larger."""
    low, high = weights
    special = [weight for weight in _WEIGHTS if low <= weight <= high] or [low]
    # Thousandths: a weight of 1e-38 is another number than 0 and moves nothing.
    least, most = math.ceil(1000 * max(low, -10.0)), math.floor(1000 * min(high, 20.0))
    anything = st.integers(least, most).map(lambda n: n / 1000) if least <= most else st.just(low)
    return (st.sampled_from(special) | st.sampled_from(special) | anything).map(
        lambda weight: spec.neutral_scale + weight
    )


def seeds() -> st.SearchStrategy[int]:
    """Seeds of the caller's generator: 0, small, random, and where 16, 31, 32 or 63 bits end."""
    return st.sampled_from(_SEEDS) | st.integers(0, 2**31 - 1)


@st.composite
def sizes(draw: st.DrawFn, subject: Subject, domain: Domain | None = None) -> Size:
    """`(height, width)` that the subject can be asked for: multiples of its size multiple, or one of its sizes.

    Usual sizes up to the native side, and extreme aspect ratios up to `max_side`; always within the budget.
    """
    filled = (domain or Domain()).of(subject)
    budget, multiple = filled.budget or 1, subject.spec.multiple
    if subject.sizes is not None:
        known = sorted((tuple(size) for size in subject.sizes), key=lambda size: (size[0] * size[1], size))
        cheap = [size for size in known if size[0] * size[1] <= budget] or known[:1]
        height, width = draw(st.sampled_from(cheap))
        return height, width
    native = max(subject.case.height, subject.case.width) // multiple
    limit = (filled.max_side or multiple) // multiple
    # A size that takes the whole budget would leave one prompt and one step.
    area = max(1, min(budget // 4, 2 * subject.case.height * subject.case.width) // multiple**2)
    if draw(st.integers(0, 2)) < 2:
        first = draw(st.integers(1, min(native, limit, area)))
        second = draw(st.integers(1, min(native, limit, max(1, area // first))))
        return first * multiple, second * multiple
    short = draw(st.integers(1, min(max(2, native // 2), limit, area)))
    long = draw(st.integers(1, min(limit, max(1, area // short))))
    height, width = (long, short) if draw(st.booleans()) else (short, long)
    return height * multiple, width * multiple


@st.composite
def invalid_sizes(draw: st.DrawFn, subject: Subject, domain: Domain | None = None) -> Size:
    """`(height, width)` that no correct pipeline can return: off by less than the size multiple in one side or both.

    Raises:
        DeclarationError: the size multiple is 1, so every size is legal.
    """
    multiple = subject.spec.multiple
    if multiple == 1:
        raise DeclarationError(f"invalid_sizes: every size of subject {subject.name!r} is legal (size multiple 1)")
    height, width = draw(sizes(subject, domain))
    offsets = st.integers(1, multiple - 1)
    sides = draw(st.sampled_from(["height", "width", "both"]))
    return (
        height + (draw(offsets) if sides != "width" else 0),
        width + (draw(offsets) if sides != "height" else 0),
    )


@st.composite
def prompt_lists(draw: st.DrawFn, subject: Subject, batch: int) -> tuple[str, ...]:
    """`batch` prompts in the words of the subject's native ones: these, equal, cut, of one length, empty, or long.

    Long ones have up to four words more than the longest native prompt where a tokenizer is declared, whose refusal
    can be told from a defect; otherwise they are as long as that one.
    """
    native = subject.case.prompts
    words = list(dict.fromkeys(word for prompt in native for word in prompt.split())) or ["a"]
    longest = max(1, *(len(prompt.split()) for prompt in native))
    rows = tuple(native[row % len(native)] for row in range(batch))
    kind = draw(st.sampled_from(_PROMPT_KINDS))
    if kind == "native":
        return rows
    if kind == "equal":
        return (draw(st.sampled_from(native)),) * batch
    if kind == "some empty":
        full = draw(st.integers(0, 2 ** min(batch, 16) - 1))
        return tuple(prompt if full >> (row % 16) & 1 else "" for row, prompt in enumerate(rows))
    if kind == "one length":
        length = draw(st.integers(1, longest))
        return tuple(_words(words, row, length) for row in range(batch))
    if kind == "long":
        extra = draw(st.integers(0, 4)) if subject.tokenize is not None else 0
        lengths = [longest + extra if row % 2 == 0 else min(1 + row, longest) for row in range(batch)]
        return tuple(_words(words, row, length) for row, length in enumerate(lengths))
    lengths = draw(st.lists(st.integers(1, longest), min_size=batch, max_size=batch))
    return tuple(_words(words, 3 * row, length) for row, length in enumerate(lengths))


def _words(words: list[str], start: int, length: int) -> str:
    return " ".join(words[(start + place) % len(words)] for place in range(length))
