"""A FlowSpec holds only what makes sense, says which field does not, and survives a text file."""

import json
import math
from dataclasses import fields
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmcheck.errors import DeclarationError
from fmcheck.spec import FlowSpec

NAMES = [field.name for field in fields(FlowSpec)]
CHOICES = {
    f.name: get_args(f.type) for f in fields(FlowSpec) if get_args(f.type) and isinstance(get_args(f.type)[0], str)
}
FLAGS = ["null_means_unconditional", "unscale_before_decode"]
POSITIVE = st.floats(1e-6, 1e6)
NUMBER = st.floats(-1e6, 1e6)
RANGES = st.tuples(NUMBER, NUMBER).filter(lambda pair: pair[0] < pair[1])


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    """Valid fields, any subset of them."""
    down, patch = draw(st.integers(1, 64)), draw(st.none() | st.integers(1, 4))
    channels = draw(st.integers(1, 64))
    levels = draw(st.sampled_from([None, 0.001, 0.5]))
    table: dict[str, Any] = {name: draw(st.sampled_from(choices)) for name, choices in CHOICES.items()}
    table |= {name: draw(st.booleans()) for name in FLAGS}
    if table["grid"] not in ("uniform", "shifted"):
        levels = None
    table |= {
        "guidance_rescale": draw(st.floats(0, 1)),
        "guidance_interval": draw(RANGES),
        "grid_shift_by_tokens": (256.0, 0.5, 4096.0, 1.15) if table["grid"] == "shifted" and levels else None,
        "grid_token_patch": draw(st.none() | st.integers(1, 4)),
        "grid_last_sigma": levels,
        "grid_terminal": levels,
        "grid_edges": draw(st.none() | st.just((0.0, 0.25, 1.0))),
        "latent_frames": draw(st.none() | st.integers(1, 8)),
        "token_patch": patch,
        "time_offset": draw(st.none() | NUMBER),
        "time_slope": draw(st.none() | NUMBER.filter(bool)),
        "guidance_from": draw(st.none() | NUMBER),
        "grid_mean": draw(NUMBER),
        "grid_std": draw(POSITIVE),
        "grid_clamp": draw(st.floats(0, 0.499)),
        "grid_shift": draw(POSITIVE),
        "sigma_min": draw(st.floats(0, 0.999)),
        "noise_scale": draw(POSITIVE),
        "latent_channels": channels,
        "downsampling": down,
        "size_multiple": draw(st.none() | st.integers(1, 8).map(lambda n: n * down * (patch or 1))),
        "latent_scale": draw(NUMBER.filter(bool) | st.tuples(*[NUMBER.filter(bool)] * channels)),
        "latent_shift": draw(NUMBER | st.tuples(*[NUMBER] * channels)),
        "image_channels": draw(st.integers(1, 8)),
        "image_range": draw(RANGES),
        "decode_range": draw(st.none() | RANGES),
        "null_probability": draw(st.floats(0, 0.999)),
    }
    assert table.keys() == set(NAMES), "a new field needs a strategy"
    kept = draw(st.sets(st.sampled_from(sorted(table)))) | {"downsampling", "latent_channels", "grid", "token_patch"}
    return {name: value for name, value in table.items() if name in kept}


@given(specs())
def test_a_valid_spec_survives_a_text_file(table: dict[str, Any]) -> None:
    spec = FlowSpec(**table)
    text = json.dumps(spec.as_table(), allow_nan=False)
    assert FlowSpec.from_table(json.loads(text)) == spec
    assert hash(spec) == hash(FlowSpec.from_table(json.loads(text)))
    assert None not in spec.as_table().values(), "TOML knows no null"


@given(specs(), st.integers(1, 64), st.integers(1, 64))
def test_derived_numbers_fit_together(table: dict[str, Any], rows: int, columns: int) -> None:
    spec = FlowSpec(**table)
    assert spec.multiple % spec.downsampling == 0
    channels, h, w = spec.latent_size(rows * spec.multiple, columns * spec.multiple)
    assert (h * spec.downsampling, w * spec.downsampling) == (rows * spec.multiple, columns * spec.multiple)
    assert channels == spec.latent_channels
    assert spec.time_map[1] != 0
    assert spec.guidance_weight(spec.neutral_scale) == 0
    assert spec.stages in (1, 2)


HOSTILE = st.one_of(
    st.none(),
    st.booleans(),
    st.text(max_size=5),
    st.floats(),
    st.integers(),
    st.just(10**400),
    st.lists(st.floats() | st.none() | st.text(max_size=2), max_size=3),
    st.tuples(st.floats(), st.text(max_size=2)),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
    st.binary(max_size=3),
    st.builds(object),
    st.sampled_from([complex(1, 1), float, Ellipsis, range(3), {1, 2}, frozenset(), 1.5e308]),
)


@given(st.sampled_from(NAMES), HOSTILE)
def test_a_wrong_value_is_refused_by_the_name_of_its_field_and_by_nothing_else(name: str, value: Any) -> None:
    refusal = _refusal(name, value)
    if refusal is None:
        spec = FlowSpec(**{name: value})
        assert FlowSpec.from_table(json.loads(json.dumps(spec.as_table()))) == spec
    else:
        # Whether a size multiple is legal depends on the downsampling, so either may be named.
        assert refusal.startswith((f"FlowSpec.{name}: expected ", "FlowSpec.size_multiple: expected "))
        assert "; found " in refusal


def _refusal(name: str, value: Any) -> str | None:
    try:
        FlowSpec(**{name: value})
    except DeclarationError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"solver": "eular"},
            "expected one of euler, midpoint, heun, other, stochastic; found 'eular'; did you mean 'euler'?",
        ),
        ({"grid": 3}, "expected one of logit_normal, uniform, shifted, declared; found 3"),
        ({"null_means_unconditional": 1}, "expected true or false; found 1"),
        ({"latent_channels": True}, "expected a positive integer; found True"),
        ({"latent_scale": 0}, "expected numbers other than 0; found 0"),
        ({"grid_std": -1.0}, "expected a number above 0; found -1.0"),
        ({"grid_clamp": 0.5}, "expected a number in [0, 0.5); found 0.5"),
        ({"sigma_min": 1}, "expected a number in [0, 1); found 1"),
        ({"null_probability": math.nan}, "expected a finite number; found nan"),
        ({"image_range": (1, -1)}, "expected a pair (low, high) with low < high; found (1, -1)"),
        ({"decode_range": "01"}, "expected a pair (low, high) with low < high; found '01'"),
        ({"time_slope": 0}, "expected a slope other than 0, since time must be readable from it; found 0"),
        ({"time_offset": "4"}, "expected a finite number; found '4'"),
        ({"guidance_from": math.inf}, "expected a finite number; found inf"),
        ({"size_multiple": 40}, "expected a positive multiple of downsampling (32); found 40"),
        ({"size_multiple": 0}, "expected a positive multiple of downsampling (32); found 0"),
    ],
)
def test_messages(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        FlowSpec(**changes)
    assert str(caught.value) == f"FlowSpec.{next(iter(changes))}: {message}"


def test_unknown_keys_and_tables_that_are_none() -> None:
    with pytest.raises(DeclarationError, match="unknown key 'sover'; did you mean 'solver'"):
        FlowSpec.from_table({"sover": "euler"})
    for table in (None, [], "solver", 3):
        with pytest.raises(DeclarationError, match="expected a table"):
            FlowSpec.from_table(table)
    with pytest.raises(DeclarationError, match="unknown key 3"):
        FlowSpec.from_table({3: "euler"})


@pytest.mark.parametrize(
    ("argument", "at_source", "at_data"),
    [("log_snr", 4, -4), ("t", 0, 1), ("sigma", 1, 0), ("timestep", 1000, 0)],
)
def test_time_maps(argument: Any, at_source: float, at_data: float) -> None:
    offset, slope = FlowSpec(time_argument=argument).time_map
    assert (offset, offset + slope) == (at_source, at_data)
    assert FlowSpec(time_argument=argument, time_offset=2, time_slope=5).time_map == (2.0, 5.0)


def test_guidance_weights() -> None:
    plus, between = FlowSpec(), FlowSpec(guidance_formula="uncond_plus")
    assert (plus.neutral_scale, plus.guidance_weight(0), plus.guidance_weight(2.5)) == (0, 0, 2.5)
    assert (between.neutral_scale, between.guidance_weight(1), between.guidance_weight(7.5)) == (1, 0, 6.5)
    off_below = FlowSpec(guidance_formula="uncond_plus", guidance_from=1.0)
    assert (off_below.guidance_weight(0.5), off_below.guidance_weight(1.5)) == (0, 0.5)
    assert FlowSpec(guidance_formula="uncond_plus").guidance_weight(0.5) == -0.5


def test_tokens_make_the_size_multiple():
    spec = FlowSpec(downsampling=8, latent_channels=16, token_patch=2)
    assert (spec.multiple, spec.packed_size) == (16, 4)
    with pytest.raises(DeclarationError, match=r"token_patch: expected .*fit: size_multiple 16"):
        FlowSpec(downsampling=8, token_patch=2, size_multiple=8)


def test_noise_is_another_word_for_the_source_end():
    assert FlowSpec(prediction="noise") == FlowSpec(prediction="x0")


def test_an_embedded_scale_leaves_one_branch():
    assert FlowSpec(guidance_layout="embedded").guidance_weight(3.5) == 0


def test_the_shift_grows_with_the_image():
    """Flux: log shift 0.5 at 256 tokens and 1.15 at 4,096, so exp(1.15) at 1024 x 1024 and exp(0.5) at 256 x 256."""
    spec = FlowSpec(
        grid="shifted", grid_shift_by_tokens=(256, 0.5, 4096, 1.15), downsampling=8, latent_channels=16, token_patch=2
    )
    assert spec.at(1024, 1024).grid_shift == pytest.approx(math.exp(1.15), rel=1e-15)
    assert spec.at(256, 256).grid_shift == pytest.approx(math.exp(0.5), rel=1e-15)
    assert spec.at(256, 256).grid_shift_by_tokens is None
    linear = FlowSpec(grid="shifted", grid_shift_law="linear", grid_shift_by_tokens=(0, 1, 64, 3), downsampling=8)
    assert linear.at(64, 32).grid_shift == 2.0
    assert FlowSpec().at(64, 64) == FlowSpec()


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"latent_channels": 4, "latent_scale": (1.0, 2.0)}, "latent_scale: expected a finite number, or one a latent"),
        ({"latent_channels": 2, "latent_scale": (1.0, 0.0)}, "latent_scale: expected numbers other than 0"),
        ({"grid_last_sigma": 0.001}, "grid_last_sigma: expected none on this grid"),
        ({"grid": "uniform", "grid_terminal": 1.5}, r"grid_terminal: expected a noise level in \(0, 1\)"),
        ({"grid_shift_by_tokens": (1.0, 2.0)}, "grid_shift_by_tokens: expected four numbers"),
        ({"guidance_interval": (0.7, 0.2)}, "guidance_interval: expected a pair"),
        ({"guidance_rescale": 2.0}, "guidance_rescale: expected a share"),
    ],
)
def test_conventions_that_make_no_sense_are_named(fields, named):
    with pytest.raises(DeclarationError, match=named):
        FlowSpec(**fields)
