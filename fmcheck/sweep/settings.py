"""What a sweep tries: scales, numbers of steps, prompts, seeds; and the runs that this makes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fmcheck.case import Case
from fmcheck.errors import DeclarationError
from fmcheck.spec import FlowSpec
from fmcheck.subject import Subject
from fmcheck.values import is_count

__all__ = ["Key", "Settings", "is_off", "read_prompts", "settings_for"]

# Guidance weights w of v = (1 + w) c - w u that are tried by default; in a subject's own convention they may be w + 1.
WEIGHTS = (0.0, 2.0, 3.0, 4.5, 6.0)
STEPS = (8, 16)
SEEDS, PROMPTS, BATCH = 4, 8, 8
# Between the seeds of two batches, so that prompts do not share their noise; more seeds than this would meet.
_STRIDE = 100_003


def is_off(spec: FlowSpec, scale: float) -> bool:
    """Whether guidance does nothing at a scale. A network that is told the scale is never without."""
    return spec.guidance_layout != "embedded" and spec.guidance_weight(scale) == 0


@dataclass(frozen=True, order=True)
class Key:
    """One run: `steps`, the `scale` in the subject's convention, numbers of the `seed` and of the `batch`, from 0."""

    steps: int
    scale: float
    seed: int
    batch: int

    @property
    def setting(self) -> tuple[int, float]:
        """`(steps, scale)`: what is compared."""
        return self.steps, self.scale

    def __str__(self) -> str:
        return f"{self.steps} steps, scale {self.scale:g}, seed {self.seed}, batch {self.batch}"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A sweep of one subject.

    Attributes:
        case: size, dtype, device and first seed of every run.
        scales: guidance scales, in the subject's own convention (see `Case.guidance_scale`).
        steps: numbers of sampler steps.
        seeds: how many; every scale and number of steps starts from the same ones.
        prompts: each one cluster of the statistics.
        batch: prompts of one call.

    Raises:
        DeclarationError: no scales, steps or prompts, one of them twice, or a count below 1.
    """

    case: Case
    scales: tuple[float, ...]
    steps: tuple[int, ...]
    seeds: int
    prompts: tuple[str, ...]
    batch: int

    def __post_init__(self) -> None:
        for name, option in (("scales", "--cfg-scale"), ("steps", "--num-steps"), ("prompts", "--prompts")):
            values = getattr(self, name)
            if not values:
                raise DeclarationError(f"{option}: expected one value or more; found none")
            twice = next((value for i, value in enumerate(values) if value in values[:i]), None)
            if twice is not None:
                shown = f"{twice:g}" if isinstance(twice, float) else repr(twice)
                raise DeclarationError(f"{option}: expected different values; found {shown} more than once")
        for scale in self.scales:
            self.case.but(guidance_scale=scale)
        for name, values in (("--num-steps", self.steps), ("--seeds", [self.seeds]), ("--batch-size", [self.batch])):
            for value in values:
                if not is_count(value):
                    raise DeclarationError(f"{name}: expected an integer of 1 or more; found {value!r}")
        if self.seeds >= _STRIDE:
            raise DeclarationError(f"--seeds: expected fewer than {_STRIDE}; found {self.seeds}")

    @property
    def batches(self) -> list[tuple[str, ...]]:
        """The prompts of every call."""
        return [self.prompts[i : i + self.batch] for i in range(0, len(self.prompts), self.batch)]

    def unguided_scale(self, spec: FlowSpec) -> float | None:
        """The scale whose pictures the others are compared with: a listed one at which guidance is off, else the
        neutral one. None where the network is told the scale, so that it has no unguided branch."""
        if spec.guidance_layout == "embedded":
            return None
        return next((scale for scale in self.scales if is_off(spec, scale)), spec.neutral_scale)

    def keys(self, spec: FlowSpec) -> Iterator[Key]:
        """Every run, the unguided one before those that are compared with it."""
        unguided = self.unguided_scale(spec)
        first = [] if unguided is None else [unguided]
        for steps in self.steps:
            for seed in range(self.seeds):
                for batch in range(len(self.batches)):
                    for scale in [*first, *(scale for scale in self.scales if scale != unguided)]:
                        yield Key(steps, scale, seed, batch)

    def case_of(self, key: Key) -> Case:
        """What one run asks for. The seed depends on `key.seed` and `key.batch` only: paired over scales and steps."""
        seed = self.seed_of(key.seed, key.batch)
        return self.case.but(prompts=self.batches[key.batch], num_steps=key.steps, guidance_scale=key.scale, seed=seed)

    def seed_of(self, seed: int, batch: int) -> int:
        """The generator's seed for the pictures of a batch of prompts."""
        return (self.case.seed + seed + _STRIDE * batch) % 2**63


def settings_for(
    subject: Subject,
    *,
    scales: Sequence[float] | None = None,
    steps: Sequence[int] | None = None,
    size: tuple[int, int] | None = None,
    seeds: int = SEEDS,
    prompts: Sequence[str] | None = None,
    count: int | None = None,
    batch: int = BATCH,
) -> Settings:
    """The settings of a sweep of this subject, what is not given taken from it.

    Args:
        scales: by default the weights 0, 2, 3, 4.5 and 6 in the subject's own convention.
        size: height and width in pixels; by default those of the subject's case.
        prompts: by default those of the subject's judge, or of its case without one.
        count: how many of the prompts, from the first; by default all that are given, or at most 8 of the subject's.

    Raises:
        DeclarationError: as :class:`Settings`; a size that the subject cannot make; more prompts than there are.
    """
    own = subject.judge.prompts if subject.judge is not None else tuple(dict.fromkeys(subject.case.prompts))
    texts = own if prompts is None else tuple(prompts)
    if count is not None and not is_count(count):
        raise DeclarationError(f"--count: expected an integer of 1 or more; found {count!r}")
    if count is not None and count > len(texts):
        whose = f"subject {subject.name!r} has" if prompts is None else "the file has"
        raise DeclarationError(f"--count: expected at most {len(texts)}, since {whose} no more prompts; found {count}")
    wanted = count or (PROMPTS if prompts is None else len(texts))
    height, width = size or (subject.case.height, subject.case.width)
    _check_size(subject, height, width)
    neutral = subject.spec.neutral_scale
    return Settings(
        case=subject.case.but(height=height, width=width),
        scales=tuple(w + neutral for w in WEIGHTS) if scales is None else tuple(float(scale) + 0.0 for scale in scales),
        steps=STEPS if steps is None else tuple(steps),
        seeds=seeds,
        prompts=texts[:wanted],
        batch=batch,
    )


def _check_size(subject: Subject, height: int, width: int) -> None:
    multiple = subject.spec.multiple
    if not is_count(height) or not is_count(width) or height % multiple or width % multiple:
        raise DeclarationError(
            f"--size: expected multiples of {multiple}, the size multiple of subject {subject.name!r}; "
            f"found {height}x{width}"
        )
    if subject.sizes is not None and (height, width) not in [tuple(size) for size in subject.sizes]:
        known = ", ".join(f"{h}x{w}" for h, w in subject.sizes)
        raise DeclarationError(
            f"--size: expected one of {known}, the sizes of subject {subject.name!r}; found {height}x{width}"
        )


def read_prompts(path: Path) -> tuple[str, ...]:
    """The prompts of a text file, one a line; blank lines are left out.

    Raises:
        DeclarationError: the file cannot be read, is no UTF-8, or holds no prompt.
    """
    try:
        # Some editors begin a file with a byte order mark, which belongs to no prompt.
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DeclarationError(f"--prompts {path}: expected a UTF-8 text file; {error}") from error
    found = tuple(line.strip() for line in lines if line.strip())
    if not found:
        raise DeclarationError(f"--prompts {path}: expected one prompt a line; the file is empty")
    return found
