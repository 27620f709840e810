"""What `fmcheck tiny train` does."""

import sys
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fmcheck.errors import DeclarationError

__all__ = ["train_tiny"]


def train_tiny(out: Path, *, device: str, seed: int) -> None:
    """Train the tiny model, measure it on held-out prompts and write weights and card into `out`.

    Raises:
        DeclarationError: a device that is not there, a path that is no folder, or files of another training.
    """
    from fmcheck.tiny.trained import in_half_precision
    from fmcheck.tiny.training import scored, train, write_trained

    if out.exists() and not out.is_dir():
        raise DeclarationError(f"--out {out}: expected a folder; found a file")
    _check_device(device)
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        tasks = {}

        def on_step(stage: str, done: int, steps: int, loss: float) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=steps, loss=loss)
            bar.update(tasks[stage], completed=done, loss=loss)
            if bar.disable and done == steps:
                print(f"{stage}: {steps} steps, loss {loss:.4f}; the log is {out / 'train.jsonl'}", file=sys.stderr)

        try:
            model = train(out, device=device, seed=seed, on_step=on_step)
        except (ValueError, FloatingPointError) as error:
            raise DeclarationError(f"tiny train: {error}") from error
    in_half_precision(model)
    scores = scored(model)
    path = write_trained(model, out, scores, device=device, seed=seed)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB", file=sys.stderr)
    for name, value in scores.items():
        print(f"{name:<24} {value:.4f}")


def _check_device(device: str) -> None:
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise DeclarationError(f"--device {device}: {str(error).splitlines()[0]}") from error
