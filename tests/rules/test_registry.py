"""The registry: codes, documentation, selection, and what a rule must not do."""

import ast
import inspect

import pytest

from fmcheck.errors import DeclarationError, InternalError
from fmcheck.rules import Rule, all_rules, get_rule, select_rules
from fmcheck.rules.registry import FAMILIES, rule

RULES = all_rules()


def test_codes_are_sorted_unique_and_of_known_families() -> None:
    codes = [known.code for known in RULES]
    assert codes == sorted(set(codes))
    assert {known.family for known in RULES} <= set(FAMILIES)
    assert len({known.name for known in RULES}) == len(RULES)


@pytest.mark.parametrize("known", RULES, ids=str)
def test_the_docstring_is_a_page(known: Rule) -> None:
    assert known.summary.endswith((".", "`"))
    for part in ("How it goes wrong:", "Checked:", "Fix:", "Source:"):
        assert part in known.doc, f"{known}: no {part}"


@pytest.mark.parametrize("known", RULES, ids=str)
def test_a_rule_neither_returns_early_nor_asserts(known: Rule) -> None:
    tree = ast.parse(inspect.getsource(known.function))
    kinds = {type(node) for node in ast.walk(tree)}
    assert not kinds & {ast.Return, ast.Assert, ast.Try}, "premises belong in require(), not in an early return"
    assert inspect.isgeneratorfunction(known.function)


def test_rules_are_found_by_code_and_name_and_prefix() -> None:
    assert get_rule("fm203") is get_rule("wrong-guidance")
    with pytest.raises(DeclarationError, match="did you mean 'FM20"):
        get_rule("FM2033")
    chosen = select_rules(["FM2", "fm305"], ["FM203"])
    assert [r.code for r in chosen] == ["FM201", "FM202", "FM204", "FM205", "FM206", "FM207", "FM208", "FM209", "FM305"]
    assert select_rules() == RULES


@pytest.mark.parametrize("arguments", [(["FM99"], []), ([], ["XX"])])
def test_a_mistyped_selection_is_an_error(arguments: tuple[list[str], list[str]]) -> None:
    with pytest.raises(DeclarationError, match="no rule code starts with"):
        select_rules(*arguments)


def test_codes_and_documentation_are_demanded() -> None:
    def documented(run: object) -> list[object]:
        """Something."""
        return []

    for code, name, needs, message in (
        ("FM20", "too-short", (), "letters and three digits"),
        ("FM999", "ours", (), "begin with FM are reserved for fmcheck"),
        ("FM203", "again", (), "FM203 is taken by wrong-guidance"),
        ("MY001", "Not A Name", (), "small letters and hyphens"),
        ("MY001", "wrong-guidance", (), "is that of FM203"),
        ("MY001", "needy", ("velocty",), "unknown 'velocty'; did you mean 'velocity'"),
        ("MY001", "needy", "velocity", r"expected a tuple such as \('velocity',\)"),
    ):
        with pytest.raises(DeclarationError, match=message):
            rule(code, name, needs=needs)(documented)
    with pytest.raises(DeclarationError, match="has no docstring"):
        rule("MY001", "bare")(lambda run: [])


def test_a_malformed_rule_of_fmcheck_itself_is_an_internal_error() -> None:
    def undocumented(run: object) -> list[object]:
        return []

    undocumented.__module__ = "fmcheck.rules.fm2_guidance"
    with pytest.raises(InternalError, match="has no docstring"):
        rule("FM299", "bare")(undocumented)


def test_a_name_selects_as_a_code_does_and_a_choice_of_nothing_is_refused() -> None:
    assert [rule.code for rule in select_rules(["wrong-guidance"])] == ["FM203"]
    with pytest.raises(DeclarationError, match="did you mean 'wrong-guidance'"):
        select_rules(["wrong-guidence"])
    with pytest.raises(DeclarationError, match="leave no rule"):
        select_rules(["FM203"], ["FM2"])
    with pytest.raises(DeclarationError, match="no rule code starts with ''"):
        select_rules([""])
