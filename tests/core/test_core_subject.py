"""A Subject says what is wrong with a declaration before anything runs."""

import re
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from fmcheck.case import Case
from fmcheck.errors import DeclarationError
from fmcheck.session import Session
from fmcheck.spec import FlowSpec
from fmcheck.subject import ROLES, Point, Request, Subject
from fmcheck.subjects import load_subject
from fmcheck.subjects.tiny import subject as tiny


def _subject(**changes: Any) -> Subject:
    return Subject(
        **{"name": "s", "build": lambda case: None, "generate": lambda m, r: None, "velocity": "net", **changes}
    )


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"velocity": ""}, "Subject 's': velocity names no observation point; give its dotted path"),
    ({"velocity": None}, "Subject 's': velocity names no observation point; give its dotted path"),
    ({"velocity": 3}, "Subject 's', velocity: expected a dotted path or a Point; found int"),
    ({"decode": ["vae"]}, "Subject 's', decode: expected a dotted path or a Point; found list"),
    ({"decode": "vae..decode"}, "Point: expected a dotted path such as 'vae.decode'; found 'vae..decode'"),
    ({"velocity": Point("net", {"tme": 1})}, "Subject 's', velocity: unknown argument 'tme'; did you mean 'time'?"),
    ({"build": None}, "Subject 's': build: expected a function; found NoneType"),
    ({"generate": "generate"}, "Subject 's': generate: expected a function; found str"),
    ({"tokenize": 3}, "Subject 's': tokenize: expected a function; found int"),
    ({"loss": "loss"}, "Subject 's': loss: expected a function; found str"),
    ({"generate_rank": 2}, "Subject 's': generate_rank: expected a function; found int"),
    ({"shard": "fsdp"}, "Subject 's': shard: expected a function; found str"),
    ({"rank_seeding": "rank"}, "Subject 's': rank_seeding: expected 'per_sample' or 'per_rank'; found 'rank'"),
    ({"spec": {}}, "Subject 's': spec: expected a FlowSpec; found dict"),
    ({"case": None}, "Subject 's': case: expected a Case; found NoneType"),
    ({"dtypes": "float32"}, "Subject 's': dtypes: expected names such as ('float32',); found 'float32'"),
    ({"dtypes": ()}, "Subject 's': dtypes: expected names such as ('float32',); found ()"),
    ({"dtypes": ("float32", "half")}, "Case.dtype: expected one of float32, bfloat16, float16, float64; found 'half'"),
    ({"annotations": {"velocity.z": 1}}, "annotations: unknown tensor 'velocity.z'"),
    (
        {"case": Case(height=250)},
        "Subject 's': case size 250x256 is not divisible by 32, the spec's size multiple",
    ),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_wrong_declarations(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        _subject(**changes)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("path", ["", ".", "a.", ".a", "a..b", ":a", "a:", "a:b.", None, 3, b"net"])
def test_paths_that_name_nothing(path: Any) -> None:
    with pytest.raises(DeclarationError, match="Point: expected a dotted path such as 'vae.decode'"):
        Point(path)


@pytest.mark.parametrize("path", ["net", "nets.0", "vae.decode", "package.module:function", "module:Class.method"])
def test_paths(path: str) -> None:
    assert Point(path).path == path


@pytest.mark.parametrize("selector", [-1, True, 1.5, [], ("x",)])
def test_selectors_that_are_neither_name_nor_position(selector: Any) -> None:
    with pytest.raises(DeclarationError, match=r"Point 'net': arguments\['x'\]: expected a name, a position from 0"):
        Point("net", {"x": selector})
    with pytest.raises(DeclarationError, match="Point 'net': output: expected a name, a position from 0, or None"):
        Point("net", output=selector)


def test_arguments_and_when_are_mappings() -> None:
    with pytest.raises(DeclarationError, match=r"Point 'net': arguments: expected a mapping; found \['x'\]"):
        Point("net", ["x"])
    with pytest.raises(DeclarationError, match="Point 'net': when: expected a mapping; found None"):
        Point("net", when=None)


def test_points_complete_the_defaults_of_their_role() -> None:
    points = _subject(
        velocity=Point("net", {"time": "timestep", "null": None}),
        decode="vae.decode",
        entry=Point("generate", {"height": "size"}),
    ).points
    assert dict(points["velocity"].arguments) == {"x": 0, "time": "timestep", "null": None}
    assert points["decode"] == Point("vae.decode", {"x": 0})
    assert dict(points["generate"].arguments) == {"height": "size"}, "entries name their arguments as they like"
    assert list(points) == ["generate", "velocity", "decode"]


def test_every_role_has_a_field() -> None:
    places = {"entry": "a", "text": "b", "encode": "d", "sample": "e", "decode": "f", "loss_entry": "g"}
    assert set(_subject(**places).points) == set(ROLES)


def test_changes_are_checked_too() -> None:
    subject = _subject(annotations={"text.output": Float[Tensor, "N L D"]})
    assert subject.but(name="t").annotations == subject.annotations
    with pytest.raises(DeclarationError, match="not divisible by 64"):
        subject.but(spec=FlowSpec(size_multiple=64), case=Case(height=32))


def test_a_defect_of_the_tiny_model_by_its_name() -> None:
    assert load_subject("mutant:uniform_grid").name == "tiny with uniform_grid"
    with pytest.raises(DeclarationError, match="did you mean 'uniform_grid'"):
        load_subject("mutant:uniform_gird")


@pytest.mark.parametrize("name", ["./mine.py:subject", "my-package:subject", "mine.py"])
def test_a_file_is_no_module(name: str) -> None:
    with pytest.raises(DeclarationError, match=r"expected one of tiny or package\.module:attribute"):
        load_subject(name)


def test_the_folder_of_the_configuration_is_importable(tmp_path: Path) -> None:
    (tmp_path / "in_another_folder.py").write_text("from fmcheck.subjects.tiny import subject\n")
    assert load_subject("in_another_folder:subject", tmp_path).name == "tiny"
    assert str(tmp_path) not in sys.path


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"velocity": Point("fm_transformers", arguments={"x": "state"})}, "no parameter 'state'; it takes x, log_snr"),
        ({"encode": Point("autoencoder", when={"func": "encode"})}, "it has no parameter 'func'; did you mean 'fn'"),
        ({"build": lambda case: None}, "build returned None, expected the model"),
    ],
)
def test_what_the_model_does_not_have_is_said_before_any_run(changes: dict, told: str) -> None:
    session = Session(tiny.but(**changes))
    for _ in range(2):
        with pytest.raises(DeclarationError, match=re.escape(told)):
            session.run(session.plan.base)


def test_a_build_that_fails_is_not_tried_again() -> None:
    tried: list[int] = []

    def build(case: Case) -> None:
        tried.append(1)
        raise RuntimeError("no checkpoint")

    session = Session(tiny.but(build=build))
    for _ in range(3):
        with pytest.raises(DeclarationError, match="build raised RuntimeError: no checkpoint"):
            session.model(tiny.case)
    assert len(tried) == 1


def _named_by(build: Any) -> str:
    return Subject(build=build, generate=lambda m, r: None, velocity="net").name


def test_a_subject_without_a_name_has_that_of_the_module_its_build_was_written_in() -> None:
    assert _named_by(_subject) == __name__
    assert _named_by(partial(partial(_subject), velocity="net")) == __name__
    assert _named_by(SimpleNamespace.__new__) == "subject", "a builtin method has none"


class TestKeywords:
    request_ = Request(Case(prompts=("a cat",), num_steps=7, guidance_scale=1.5, height=64), {}, torch.Generator())

    def test_the_names_of_the_request(self) -> None:
        assert self.request_.keywords() == {
            "height": 64,
            "width": 256,
            "num_steps": 7,
            "guidance_scale": 1.5,
            "generator": self.request_.generator,
        }

    def test_the_names_of_the_sampler(self) -> None:
        found = self.request_.keywords(steps="num_steps", w="guidance_scale", prompt="prompts", generator=None)
        assert found == {"height": 64, "width": 256, "steps": 7, "w": 1.5, "prompt": ["a cat"]}

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            ({"steps": "num_step"}, r"steps='num_step': a request has height, width, .*; did you mean 'num_steps'\?"),
            ({"steps": None}, "steps=None: a request has height, width, num_steps, guidance_scale, generator, prompts"),
        ],
    )
    def test_a_name_that_the_request_does_not_have(self, names: dict[str, Any], message: str) -> None:
        with pytest.raises(DeclarationError, match=f"Request.keywords: {message}"):
            self.request_.keywords(**names)
