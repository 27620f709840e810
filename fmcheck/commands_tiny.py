"""What `fmcheck tiny` does."""

from pathlib import Path

from fmcheck import pictures
from fmcheck.commands import progress, stdout, width_of
from fmcheck.gallery import exhibit
from fmcheck.gallery.entries import entries
from fmcheck.gallery.files import write_files
from fmcheck.gallery.golden import make_golden
from fmcheck.gallery.page import gallery_json, gallery_markdown, gallery_page
from fmcheck.gallery.picture import save_gallery
from fmcheck.subject import Subject
from fmcheck.subjects import load_subject
from fmcheck.subjects.tiny import GOLDEN

__all__ = ["gallery", "golden"]


def golden(
    output: Path | None, *, prompts: int, seeds: int, scale: float | None = None, steps: int | None = None
) -> int:
    """Make the golden scores of the tiny model and write them to a file, by default the one in the package.

    Raises:
        DeclarationError: too few prompts or seeds, or a file that cannot be written.
    """
    path = output or GOLDEN
    with progress(seeds, "seeds", left=True) as (say, advance):
        say("golden scores")
        subject = load_subject("tiny")
        found = make_golden(
            subject, prompts=prompts, seeds=seeds, scale=scale, steps=steps, on_seed=lambda _: advance()
        )
    write_files({path.name: found.as_text().encode()}, path.parent)
    means = ", ".join(f"{name} {found.mean(name):.3f}" for name in found.scores)
    stdout().print(f"{path}: {means}", soft_wrap=True, highlight=False)
    return 0


def gallery(folder: Path, *, prompts: int, names: list[str], subject: Subject | None = None) -> int:
    """Make the gallery of the tiny model and write its picture, its numbers and its table.

    Raises:
        DeclarationError: no matplotlib, too few prompts, a defect that is not in the gallery, or a folder that cannot
            be written.
    """
    pictures.require()
    subject, chosen = subject or load_subject("tiny"), entries(names)
    with progress(len(chosen), "defects", left=True) as (say, advance):
        made = exhibit.gallery(subject, chosen, prompts=prompts, on_entry=say, on_done=advance)
    table, numbers = gallery_markdown(made), f"{gallery_json(made)}\n"
    write_files({"gallery.md": table.encode(), "gallery.json": numbers.encode()}, folder)
    save_gallery(made, folder / "gallery.png")
    console, written = stdout(), f"{folder / 'gallery.png'}, gallery.json, gallery.md"
    gallery_page(made, width=width_of(console), written=written).show(console)
    return 0
