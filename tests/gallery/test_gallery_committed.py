"""The gallery in the repository is the one that the command makes: README, table, numbers and picture agree."""

import json
from pathlib import Path

import pytest

from fmcheck.gallery import exhibit
from fmcheck.gallery.entries import entries
from fmcheck.gallery.page import gallery_json
from fmcheck.subjects import load_subject

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "fixtures" / "gallery"


def test_the_readme_shows_the_committed_table_and_picture() -> None:
    table, _, notes = (FOLDER / "gallery.md").read_text().partition("\n\n")
    readme = (ROOT / "README.md").read_text()
    assert table in readme
    assert " ".join(notes.split()) in " ".join(readme.split())
    assert "(fixtures/gallery/gallery.png)" in readme
    assert (FOLDER / "gallery.png").stat().st_size < 300_000


# Their defect draws from a generator that nobody seeds.
RANDOM = {
    "log3_projection_instead_of_reshape",
    "log3_projection_made_in_generate",
    "log5_random_time_per_step",
    "log9_mapping_rebuilt_for_every_size",
}


@pytest.mark.slow
def test_the_committed_numbers_are_made_again() -> None:
    committed = json.loads((FOLDER / "gallery.json").read_text())
    prompts = len(committed["case"]["prompts"])
    again = exhibit.gallery(load_subject("tiny"), entries([]), prompts=prompts)
    made = json.loads(gallery_json(again))
    assert [e["name"] for e in made["exhibits"]] == [e["name"] for e in committed["exhibits"]]
    for found, expected in zip(made["exhibits"], committed["exhibits"], strict=True):
        assert found["trouble"] == expected["trouble"]
        assert (found["caught"] or {}).get("code") == (expected["caught"] or {}).get("code")
        for name, mean in ({} if found["name"] in RANDOM else expected["means"] or {}).items():
            # On other kernels, two pictures may fall on the other side of a threshold.
            assert found["means"][name]["mean"] == pytest.approx(mean["mean"], abs=2 / prompts), found["name"]
