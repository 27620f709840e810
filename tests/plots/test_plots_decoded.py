"""States as pictures: the subject's own functions are called as its loop calls them, and nothing else changes."""

import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from fmcheck.errors import NotInformative
from fmcheck.flow import pack
from fmcheck.plan import Run
from fmcheck.plots.decoded import Decoded, chosen_steps, decoded_states, unpack
from fmcheck.record.watch import RandomWatch, device_generators
from fmcheck.session import Session
from fmcheck.spec import FlowSpec
from tests.foreign.subjects import SUBJECTS
from tests.rules.toy import SPEC, Codec, Toy, toy_subject


def decoded(subject: Any) -> tuple[Run, Decoded]:
    session = Session(subject)
    run = session.run(session.plan.base)
    return run, decoded_states(session, run)


def in_unit_range(pictures: Tensor, spec: FlowSpec) -> Tensor:
    low, high = spec.decode_range or spec.image_range
    return ((pictures.double() - low) / (high - low)).clamp(0, 1).permute(0, 2, 3, 1)


def shown(found: Decoded, position: int) -> Tensor:
    return torch.stack(found.pictures[position])


@pytest.mark.parametrize(
    ("count", "steps"),
    [(2, (0, 1)), (5, (0, 1, 2, 3, 4)), (6, (0, 1, 2, 3, 4, 5)), (51, (0, 10, 20, 30, 40, 50))],
)
def test_steps_are_spread_from_the_first_to_the_last(count: int, steps: tuple[int, ...]) -> None:
    assert chosen_steps(count) == steps


def test_the_last_state_is_the_picture_that_came_out(tiny: tuple[Session, Run]) -> None:
    session, run = tiny
    found = decoded_states(session, run)
    assert found.steps == (0, 1, 2, 3, 4)
    assert torch.equal(shown(found, -1), in_unit_range(run.result, run.subject.spec)[:4])


def test_every_state_goes_through_sample_and_decode() -> None:
    run, found = decoded(toy_subject())
    codec = Toy().codec
    for position, call in enumerate(run.trace.of("velocity")):
        with torch.no_grad():
            expected = codec.decode(codec.sample(call.inputs["x"][:3]))
        assert torch.equal(shown(found, position), in_unit_range(expected, SPEC))


def test_without_sample_the_declared_units_lead_to_the_decoder() -> None:
    _, found = decoded(toy_subject(sample=None))
    _, through_sample = decoded(toy_subject())
    for position in range(5):
        assert torch.allclose(shown(found, position), shown(through_sample, position), atol=1e-6)


@pytest.mark.parametrize(
    "name", ["functional", "noise", "tokens", "video", "lists", "data", "wrapped", "sampler_object"]
)
def test_conventions_of_others(name: str) -> None:
    run, found = decoded(SUBJECTS[name])
    calls = [call.output for call in run.reading.after_loop if call.role == "decode" and call.output is not None]
    last = torch.cat([out.unsqueeze(0) if out.dim() == 3 else out for out in calls])
    last = last[:, :, 0] if last.dim() == 5 else last
    assert torch.allclose(shown(found, -1), in_unit_range(last, run.subject.spec), atol=2e-2)
    assert not torch.allclose(shown(found, 0), shown(found, -1), atol=2e-2)


@pytest.mark.parametrize("order", ["channels_first", "channels_last"])
@pytest.mark.parametrize("frames", [None, 1, 3])
@pytest.mark.parametrize("patch", [1, 2])
def test_unpacking_is_the_inverse_of_packing(patch: int, frames: int | None, order: Any) -> None:
    spec = FlowSpec(latent_channels=3, downsampling=2, token_patch=patch, latent_frames=frames, token_order=order)
    shape = (2, 3, 4, 6) if frames is None else (2, 3, frames, 4, 6)
    latent = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(unpack(pack(latent, spec), latent.shape, spec), latent)


def test_tokens_that_do_not_fill_the_latent_are_refused() -> None:
    spec = FlowSpec(latent_channels=3, downsampling=2, token_patch=2)
    with pytest.raises(NotInformative, match="do not fill"):
        unpack(torch.zeros(2, 5, 12), torch.Size((2, 3, 4, 6)), spec)


class OneByOne(Codec):
    def decode(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(row[None]) for row in x])

    def one(self, x: Tensor) -> Tensor:
        return super().decode(x)


class Parted(Toy):
    def __init__(self) -> None:
        super().__init__()
        self.codec = OneByOne(torch.Generator().manual_seed(5))


def test_a_decoder_that_is_called_row_by_row_gets_row_by_row() -> None:
    _, by_rows = decoded(toy_subject(Parted, decode="codec.one"))
    _, whole = decoded(toy_subject(Parted))
    for position in range(5):
        assert torch.allclose(shown(by_rows, position), shown(whole, position), atol=1e-6)


class Previews(Toy):
    def velocity_at(self, x: Tensor, t: Tensor, scale: float) -> Tensor:
        self.preview = self.codec.decode(self.codec.sample(x))
        return super().velocity_at(x, t, scale)


@pytest.mark.parametrize("points", [{}, {"sample": None}])
def test_previews_that_the_loop_decodes_on_its_way_are_left_alone(points: dict[str, None]) -> None:
    _, found = decoded(toy_subject(Previews, **points))
    _, plain = decoded(toy_subject(**points))
    for position in range(5):
        assert torch.equal(shown(found, position), shown(plain, position))


def test_no_decode_is_a_reason() -> None:
    with pytest.raises(NotInformative, match="declares no 'decode'"):
        decoded(toy_subject(decode=None))


class DecodesSomethingElse(Toy):
    def finish(self, images: Tensor) -> Tensor:
        return images

    def integrate(self, x: Tensor, num_steps: int, scale: float, generator: torch.Generator) -> Tensor:
        return torch.cat([super().integrate(x, num_steps, scale, generator)] * 2)


def test_a_state_that_is_not_what_is_decoded_is_a_reason() -> None:
    with pytest.raises(NotInformative, match="FM601"):
        decoded(toy_subject(DecodesSomethingElse))


class TooManyChannels(Toy):
    def __init__(self) -> None:
        super().__init__()
        self.codec = FiveChannels(torch.Generator().manual_seed(0))


class FiveChannels(Codec):
    def decode(self, x: Tensor) -> Tensor:
        return super().decode(x)[:, [0, 1, 2, 0, 1]]


def test_what_is_no_picture_is_a_reason() -> None:
    with pytest.raises(NotInformative, match="no pictures of 1 or 3 channels"):
        decoded(toy_subject(TooManyChannels))


class Raises(Toy):
    """Its decoder takes one call a run, so that every further state makes it raise."""

    def __init__(self) -> None:
        super().__init__()
        self.codec = OnceARun(torch.Generator().manual_seed(0))

    def generate(self, *args: Any, **kwargs: Any) -> Tensor:
        self.codec.calls = 0
        return super().generate(*args, **kwargs)


class OnceARun(Codec):
    calls = 0

    def decode(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls > 1:
            raise RuntimeError("once a run")
        return super().decode(x)


def test_a_decoder_that_refuses_further_calls_is_a_reason() -> None:
    with pytest.raises(NotInformative, match="once a run"):
        decoded(toy_subject(Raises))


def test_nothing_but_the_pictures_is_made() -> None:
    session = Session(toy_subject())
    run = session.run(session.plan.base)
    model, state = session.model(run.case)
    watch, python = RandomWatch(device_generators("cpu"), process=True), random.getstate()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    calls = session.calls
    decoded_states(session, run)
    assert watch.moved() == []
    assert random.getstate() == python
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert state.changes(thorough=True) == []
    assert session.calls == calls + 1


def test_values_outside_of_the_range_are_counted() -> None:
    _, found = decoded(toy_subject(spec=replace(SPEC, image_range=(-0.5, 0.5))))
    assert 0 < found.outside[-1] < 1
    assert float(shown(found, -1).max()) == 1.0
