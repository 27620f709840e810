"""FM6, continued: whether encoding draws, and from which generator."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from fmcheck.errors import NotInformative
from fmcheck.plan import Plan, Run, Wish
from fmcheck.record.disturb import Disturbance, change_input
from fmcheck.record.trace import Call
from fmcheck.record.training import TrainingReading
from fmcheck.rules.evidence import bitwise, exact, require, require_finite
from fmcheck.rules.registry import Check, rule
from fmcheck.tensors import joined


def _same_images(plan: Plan, runs: Mapping[str, Run]) -> dict[str, Wish]:
    """The loss with another seed, whose encoder gets the images of the first one."""
    images = [call.inputs.get("x") for call in runs["loss"].trace.of("encode")]
    case = plan.loss.case.but(seed=plan.other_seed.case.seed)
    given = (_encoded_again(images),)
    return {"again": replace(plan.loss, name="loss-same-images", case=case, disturbances=given)} if images else {}


def _encoded_again(images: list[Any]) -> Disturbance:
    waiting = iter(images)

    def feed(_: dict[str, Any]) -> dict[str, Any]:
        image = next(waiting, None)
        if not isinstance(image, Tensor):
            raise NotInformative("with another seed the loss calls the encode point more often")
        return {"x": image.clone()}

    return change_input("images of the other loss", "encode", feed)


@rule(
    "FM608",
    "wrong-posterior",
    needs=("velocity", "loss", "encode"),
    wishes=lambda plan: {"loss": plan.loss},
    follow_up=_same_images,
)
def wrong_posterior(runs: Mapping[str, Run]) -> Iterator[Check]:
    """Encoding takes the declared `posterior`: its `mode`, always the same bits, or a `sample` by the caller's seed.

    How it goes wrong: `latent_dist.sample()` where the latents were cached with `mode()`, or the reverse; the encoder's
    noise comes from a generator of its own or from the global one; a constant noise is part of every latent.

    Checked: two losses of different seeds that encode the same images. With `mode` the outputs of the encode point are
    equal bit for bit; with `sample` they differ, and inside of the encode point only the caller's generator moves.
    It cannot see what is drawn after the encode point, so where that returns moments a declared sample is not judged.

    Fix: `latent_dist.mode()`, or `latent_dist.sample(generator)` and `posterior = "sample"`. Source: Kingma and
    Welling, arXiv 1312.6114, section 2.4, for the two; latent diffusion's encoder, arXiv 2112.10752, section G.
    """
    first = runs["loss"].trace.of("encode")
    require(bool(first), "the loss never calls the encode point (see FM906)")
    again = runs["again"].trace.of("encode")
    calls = [_outputs(first), _outputs(again)]
    require(len(calls[0]) == len(calls[1]) > 0, "two losses encode in another number of calls")
    require_finite(*calls[0], *calls[1])
    same = all(bitwise(a, b) for a, b in zip(*calls, strict=True))
    sources = {draw.source for run in runs.values() for draw in run.trace.draws if draw.role == "encode"}
    where = f"runs {runs['loss'].name} and {runs['again'].name}"
    if runs["loss"].subject.spec.posterior == "mode":
        yield exact(
            same,
            f"the same images have two different latents, {_apart(*calls)}, and the spec declares the posterior's mode",
            where=where,
            diagnosis=_drawn(sources) + "; take the mode, or declare posterior = 'sample'",
        )
    else:
        _require_latents(runs["loss"])
        yield exact(
            not same,
            "two seeds give the same latents, bit for bit, and the spec declares a sample of the posterior",
            where=where,
            diagnosis="what is drawn is not used"
            if sources
            else "its mode is taken, or noise with a fixed seed is added",
        )
        yield exact(
            same or sources == {"caller"},
            "the posterior is sampled with other random numbers than the caller's",
            where=where,
            diagnosis=_drawn(sources),
        )


def _outputs(calls: list[Call]) -> list[Tensor]:
    return [call.output for call in calls if call.output is not None]


def _require_latents(run: Run) -> None:
    """Reading the ends says why, where what the encode point returns is no latent."""
    require(bool(TrainingReading(run.trace, run.subject.spec).ends), "")


def _apart(first: list[Tensor], again: list[Tensor]) -> str:
    a, b = joined(first).double(), joined(again).double()
    if a.shape != b.shape:
        return "of two shapes"
    return (
        f"{float((a - b).square().mean().sqrt()):.3g} apart (root mean square) where they are {float(a.std()):.3g} wide"
    )


def _drawn(sources: set[str]) -> str:
    if not sources:
        return "the encoder draws from a generator of its own, or remembers earlier calls"
    names = ("the caller's generator" if source == "caller" else f"the global {source} one" for source in sources)
    return f"the encoder draws from {' and '.join(sorted(names))}"
