"""Defects in copies of released pipelines are found by rules that were made for none of them."""

import pytest

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from fmcheck.run import check
from tests.subjects.patched import PATCHES, SD3, Patch, patched, patched_class


def _found(patch: Patch) -> list[str]:
    known = {"FM813"} if patch.pipeline != SD3 else set()
    report = check(patched(patch))
    return sorted({outcome.rule.code for outcome in report.outcomes if outcome.status == "failed"} - known)


@pytest.mark.slow
def test_every_patch_finds_its_place_in_the_newest_release() -> None:
    for patch in PATCHES:
        assert patched_class(patch).__name__ == patch.pipeline


@pytest.mark.slow
def test_nine_of_ten_defects_in_released_pipelines_are_found() -> None:
    table = {f"{patch.pipeline}: {patch.defect}": _found(patch) for patch in PATCHES}
    for name, codes in table.items():
        print(f"{name:<70} {' '.join(codes) or 'MISSED'}")
    assert sum(map(bool, table.values())) >= 0.9 * len(table)
