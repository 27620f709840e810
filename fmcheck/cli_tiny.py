"""`fmcheck tiny`: what is made of the tiny model."""

from pathlib import Path
from typing import Annotated

import typer

from fmcheck.cli_formats import group

__all__ = ["tiny_app"]

tiny_app = group("The tiny model: its training, its golden scores, and what defects do to its pictures.")


@tiny_app.command()
def train(
    out: Annotated[
        Path,
        typer.Option(metavar="DIR", help="For checkpoints, log, weights and card; a stopped training goes on here."),
    ] = Path("fmcheck-training"),
    device: Annotated[str, typer.Option(help="Torch device, as cuda:0.")] = "cpu",
    seed: Annotated[int, typer.Option(min=0, help="Seed of weights and batches.")] = 0,
) -> None:
    """Train the tiny model from nothing, and measure it on held-out prompts."""
    from fmcheck.commands_train import train_tiny

    train_tiny(out, device=device, seed=seed)


@tiny_app.command()
def golden(
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The file to write; by default the one in the package.")
    ] = None,
    prompts: Annotated[int, typer.Option(metavar="N", min=1, help="Held-out prompts.")] = 96,
    seeds: Annotated[int, typer.Option(metavar="N", min=1, help="Seeds of every prompt.")] = 8,
    cfg_scale: Annotated[
        float | None, typer.Option(metavar="W", help="Guidance scale; by default that of the present ones, else 2.")
    ] = None,
    num_steps: Annotated[
        int | None,
        typer.Option(metavar="K", min=1, help="Sampler steps; by default those of the present, else 8."),
    ] = None,
) -> None:
    """Make the golden scores that rule FM609 compares with: after a training, or a change that was meant."""
    from fmcheck import commands_tiny as command

    raise typer.Exit(command.golden(output, prompts=prompts, seeds=seeds, scale=cfg_scale, steps=num_steps))


@tiny_app.command()
def gallery(
    names: Annotated[list[str] | None, typer.Argument(help="Only these defects, beside the clean model.")] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="For picture, numbers and table.")] = Path("fmcheck-gallery"),
    prompts: Annotated[int, typer.Option(metavar="N", min=1, help="Held-out prompts of every score.")] = 24,
) -> None:
    """Show what the development log's defects do to pictures, what they score, and which rule catches each."""
    from fmcheck import commands_tiny as command

    raise typer.Exit(command.gallery(out, prompts=prompts, names=names or []))
