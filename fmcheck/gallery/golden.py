"""Making golden scores: the same prompts under several seeds, judged."""

from collections.abc import Callable

from fmcheck.case import Case
from fmcheck.errors import DeclarationError
from fmcheck.golden import Golden
from fmcheck.judging import scores_of
from fmcheck.session import Session
from fmcheck.subject import Subject
from fmcheck.sweep.measuring import pictures_of
from fmcheck.tensors import all_finite
from fmcheck.wish import Wish

__all__ = ["PROMPTS", "SEEDS", "golden_case", "make_golden"]

# Few prompts cannot reach a share of the budget of false alarms. So many notice a fall of a mean score from 0.95 to
# 0.85, and one attribute that is wrong in a quarter of them (tests/tolerance).
PROMPTS, SEEDS = 96, 8
# Guidance weight and steps where there are no golden scores yet.
_WEIGHT, _STEPS = 2.0, 8


def golden_case(
    subject: Subject, prompts: int = PROMPTS, *, scale: float | None = None, steps: int | None = None
) -> Case:
    """The native case of a subject with the first prompts of its judge, in the first of its dtypes.

    Args:
        scale, steps: of the guidance and of the sampler; by default those of the golden scores, where there are some.

    Raises:
        DeclarationError: the subject has no judge, or its judge has fewer prompts.
    """
    judge = subject.judge
    if judge is None:
        raise DeclarationError(f"subject {subject.name!r} has no judge; Subject(judge=fmcheck.judge.Judge(...))")
    if not 0 < prompts <= len(judge.prompts):
        raise DeclarationError(f"prompts: expected 1 to {len(judge.prompts)}, those of the judge; found {prompts}")
    golden = judge.golden
    if scale is None:
        scale = golden.guidance_scale if golden else subject.spec.neutral_scale + _WEIGHT
    if steps is None:
        steps = golden.num_steps if golden else _STEPS
    changes = {"guidance_scale": scale, "num_steps": steps, "dtype": subject.dtypes[0]}
    return subject.case.but(prompts=judge.prompts[:prompts], **changes)


def make_golden(
    subject: Subject,
    *,
    prompts: int = PROMPTS,
    seeds: int = SEEDS,
    scale: float | None = None,
    steps: int | None = None,
    on_seed: Callable[[int], None] = lambda _: None,
) -> Golden:
    """Golden scores of a subject as it is now.

    Args:
        prompts: how many of the judge's prompts, made in one batch.
        seeds: how many seeds, from that of the native case on.
        scale, steps: see :func:`golden_case`.
        on_seed: called with every seed when it is done, for progress displays.

    Raises:
        DeclarationError: no judge, too few prompts, no seeds, or a run that raised or made pictures that are none.
    """
    if seeds < 1:
        raise DeclarationError(f"seeds: expected at least 1; found {seeds}")
    case = golden_case(subject, prompts, scale=scale, steps=steps)
    found = []
    for seed in range(case.seed, case.seed + seeds):
        # A session of its own each: the runs of all seeds need not be kept.
        session = Session(subject.but(case=case.but(seed=seed)))
        run = session.run(Wish("golden", session.subject.case))
        if run.failure or subject.judge is None:
            raise DeclarationError(f"subject {subject.name!r}: no golden scores: {run.failure}")
        images = pictures_of(run)
        if not all_finite(images):
            raise DeclarationError(f"subject {subject.name!r}: no golden scores: seed {seed} makes NaN or infinity")
        found.append(scores_of(subject.judge, case.prompts, images, subject.spec.image_range))
        session.forget()
        on_seed(seed)
    return Golden(
        prompts=case.prompts,
        scores={name: tuple(tuple(scores[name].tolist()) for scores in found) for name in found[0]},
        guidance_scale=case.guidance_scale,
        num_steps=case.num_steps,
        height=case.height,
        width=case.width,
        seed=case.seed,
    )
