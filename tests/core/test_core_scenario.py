"""A Scenario is plain data: it survives a text file, and says at once what no model could be asked for."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmcheck.case import Case
from fmcheck.errors import DeclarationError
from fmcheck.scenario import Call, Scenario

CASES = st.builds(
    Case,
    prompts=st.lists(st.text(max_size=6), min_size=1, max_size=3),
    height=st.integers(1, 4096),
    width=st.integers(1, 4096),
    num_steps=st.integers(1, 100),
    guidance_scale=st.floats(allow_nan=False, allow_infinity=False),
    seed=st.integers(0, 2**63 - 1),
    dtype=st.sampled_from(["float32", "bfloat16"]),
)
CALLS = st.builds(
    Call,
    case=CASES,
    kind=st.sampled_from(["generate", "loss"]),
    tokens=st.sampled_from(["plain", "padded", "masked"]),
    global_seed=st.none() | st.integers(0, 2**32 - 1),
)
SCENARIOS = st.builds(
    Scenario,
    st.lists(CALLS, min_size=1, max_size=3).map(tuple),
    st.lists(st.sampled_from(["FM204", "FM801", "MY001"]), unique=True).map(tuple),
)
CASE = Case(prompts=("a", "b"), height=64, width=96, num_steps=3, guidance_scale=1.5)
CALL = Call(case=CASE)


@given(SCENARIOS)
def test_a_scenario_survives_a_text_file(scenario: Scenario) -> None:
    text = json.dumps(scenario.as_table(), allow_nan=False)
    again = Scenario.from_table(json.loads(text))
    assert again == scenario
    assert hash(again) == hash(scenario)
    assert json.dumps(again.as_table()) == text


@given(SCENARIOS)
def test_its_cost_is_the_sum_over_its_calls_of_pixels_steps_and_batch(scenario: Scenario) -> None:
    assert scenario.cost == sum(
        len(call.case.prompts) * call.case.height * call.case.width * call.case.num_steps for call in scenario.calls
    )
    assert scenario.last is scenario.calls[-1]


@given(SCENARIOS)
def test_its_text_has_a_line_for_every_call_and_names_what_is_unusual(scenario: Scenario) -> None:
    lines = str(scenario).splitlines()
    assert len(lines) == len(scenario.calls) + bool(scenario.asks)
    for line, call in zip(lines, scenario.calls, strict=False):
        assert line.startswith(str(call.case))
        assert ("loss" in line) == (call.kind == "loss")
        assert ("tokens" in line) == (call.tokens != "plain")
        assert ("global seed" in line) == (call.global_seed is not None)
    for code in scenario.asks:
        assert code in lines[-1]


def test_the_text_of_a_scenario() -> None:
    scenario = Scenario((CALL, CALL.but(tokens="masked", global_seed=7, seed=3)), ("FM204",))
    assert str(scenario) == (
        "batch 2  64x96  steps 3  guidance 1.5  seed 0  float32  cpu\n"
        "batch 2  64x96  steps 3  guidance 1.5  seed 3  float32  cpu  masked tokens  global seed 7\n"
        "then FM204 with that case as the native one"
    )


def test_none_is_left_out_of_the_table_which_toml_has_no_word_for() -> None:
    table = Scenario((CALL,)).as_table()
    assert "global_seed" not in table["calls"][0]
    assert table["asks"] == []
    assert Scenario((CALL.but(global_seed=0),)).as_table()["calls"][0]["global_seed"] == 0


def test_a_table_may_leave_out_what_has_a_default() -> None:
    assert Scenario.from_table({"calls": [{"case": CASE.as_table()}]}) == Scenario((CALL,))
    assert Scenario.from_table({"calls": [{"case": {}}]}) == Scenario((Call(case=Case()),))


def test_lists_become_tuples_so_that_a_scenario_can_be_a_key() -> None:
    scenario = Scenario([CALL], ["FM204"])  # type: ignore[arg-type]
    assert scenario == Scenario((CALL,), ("FM204",))
    assert hash(scenario) == hash(Scenario((CALL,), ("FM204",)))


def test_changes_go_to_the_call_or_to_its_case() -> None:
    changed = CALL.but(kind="loss", seed=4, prompts=("c",))
    assert (changed.kind, changed.case.seed, changed.case.prompts) == ("loss", 4, ("c",))
    assert (CALL.kind, CALL.case.seed) == ("generate", 0)
    other = CALL.but(case=Case(height=32), width=16)
    assert (other.case.height, other.case.width) == (32, 16)
    assert CALL.but() == CALL


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"height": 0}, "Case.height: expected a positive integer; found 0"),
        ({"prompts": ()}, "Case.prompts: expected at least one prompt; found ()"),
        ({"kind": "generation"}, "Call.kind: expected one of generate, loss; found 'generation'"),
        ({"kind": ["generate"]}, "Call.kind: expected one of generate, loss; found ['generate']"),
        ({"tokens": None}, "Call.tokens: expected one of plain, padded, masked; found None"),
        ({"global_seed": -1}, "Call.global_seed: expected an integer in [0, 2**32); found -1"),
        ({"global_seed": 2**32}, "Call.global_seed: expected an integer in [0, 2**32); found 4294967296"),
        ({"global_seed": True}, "Call.global_seed: expected an integer in [0, 2**32); found True"),
        ({"global_seed": False}, "Call.global_seed: expected an integer in [0, 2**32); found False"),
        ({"global_seed": 0.0}, "Call.global_seed: expected an integer in [0, 2**32); found 0.0"),
        ({"global_seed": "1"}, "Call.global_seed: expected an integer in [0, 2**32); found '1'"),
        ({"case": {"height": 3}}, "Call.case: expected a Case; found dict"),
    ],
)
def test_wrong_calls(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        CALL.but(**changes)
    assert str(caught.value) == message


@pytest.mark.parametrize("calls", [(), [], (CASE,), (CALL, None)])
def test_a_scenario_needs_calls(calls: Any) -> None:
    with pytest.raises(DeclarationError, match=r"Scenario\.calls: expected one Call or more; found"):
        Scenario(calls)


@pytest.mark.parametrize("asks", [(1,), ("FM204", None)])
def test_asked_rules_are_codes(asks: Any) -> None:
    with pytest.raises(DeclarationError, match=r"Scenario\.asks: expected rule codes; found"):
        Scenario((CALL,), asks)


ONE = {"case": {}}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"cals": [ONE]}, "scenario: unknown key 'cals'; did you mean 'calls'?"),
        ({"calls": [ONE], "asked": []}, "scenario: unknown key 'asked'; did you mean 'asks'?"),
        ({"calls": [{"cse": {}}]}, "call: unknown key 'cse'; did you mean 'case'?"),
        ({"calls": [{"case": {}, "token": "plain"}]}, "call: unknown key 'token'; did you mean 'tokens'?"),
        ({"calls": [{"case": {"heigth": 3}}]}, "case: unknown key 'heigth'; did you mean 'height'?"),
        ({"calls": [{"case": {}, 3: 4}]}, "call: unknown key 3"),
        ({"calls": [{"kind": "loss"}]}, "call: expected a case; found none"),
        ({}, "scenario, calls: expected an array; found NoneType"),
        ({"calls": {"case": {}}}, "scenario, calls: expected an array; found dict"),
        ({"calls": "abc"}, "scenario, calls: expected an array; found str"),
        ({"calls": [ONE], "asks": "FM204"}, "scenario, asks: expected an array; found str"),
        ({"calls": [ONE], "asks": [204]}, "Scenario.asks: expected rule codes; found (204,)"),
        ({"calls": []}, "Scenario.calls: expected one Call or more; found ()"),
        ({"calls": [3]}, "call: expected a table; found int"),
        ({"calls": [{"case": 3}]}, "case: expected a table; found int"),
        ({"calls": [{"case": {"seed": "1"}}]}, "Case.seed: expected an integer in [0, 2**63); found '1'"),
        ([ONE], "scenario: expected a table; found list"),
        (None, "scenario: expected a table; found NoneType"),
    ],
)
def test_wrong_tables(table: Any, message: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        Scenario.from_table(table)
    assert str(caught.value) == message


HOSTILE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.binary(max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["case", "kind", "x"]), inner),
    max_leaves=4,
)


@given(st.sampled_from(["calls", "asks", "case", "kind", "tokens", "global_seed"]), HOSTILE)
def test_whatever_a_file_holds_is_a_scenario_or_a_declaration_error(key: str, value: Any) -> None:
    table: dict[str, Any] = {"calls": [{"case": {}}]}
    (table if key in ("calls", "asks") else table["calls"][0])[key] = value
    try:
        scenario = Scenario.from_table(table)
    except DeclarationError:
        return
    assert Scenario.from_table(scenario.as_table()) == scenario
