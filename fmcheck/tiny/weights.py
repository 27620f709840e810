"""Saving and loading weights as safetensors: plain numbers, nothing in the file is executed."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


def save_weights(model: nn.Module, path: str | Path) -> None:
    """Write the model's parameters to ``path``, in their own dtypes.

    Raises ``ValueError`` if a value is not finite: a file that cannot be loaded again should not exist.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    _check_finite(tensors, "the model")
    save_file(tensors, str(path))


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Read ``path`` into the model, converting to the dtype and device of each parameter.

    Either all parameters are replaced or none.  Raises ``FileNotFoundError`` for a missing file and ``ValueError``
    for one that is damaged, has other names or shapes, or holds values that are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}")
    try:
        tensors = load_file(str(path), device="cpu")
    except SafetensorError as error:
        raise ValueError(f"{path}: expected a safetensors file, found one that cannot be read ({error})") from error
    state = model.state_dict()
    _check_names(set(state), set(tensors), path)
    _check_shapes(state, tensors, path)
    # Converted before the check, because a number may overflow on the way to a narrower dtype.
    converted = {name: value.to(state[name].dtype) for name, value in tensors.items()}
    _check_finite(converted, str(path))
    with torch.no_grad():
        for name, target in state.items():
            target.copy_(converted[name])


def _check_names(expected: set[str], found: set[str], path: Path) -> None:
    if expected != found:
        missing, unknown = sorted(expected - found), sorted(found - expected)
        raise ValueError(f"{path}: names differ from the model's: missing {missing[:3]}, unknown {unknown[:3]}")


def _check_shapes(expected: dict[str, Tensor], found: dict[str, Tensor], path: Path) -> None:
    for name, target in expected.items():
        if found[name].shape != target.shape:
            raise ValueError(f"{path}: {name}: expected shape {list(target.shape)}, found {list(found[name].shape)}")
        if not found[name].is_floating_point():
            raise ValueError(f"{path}: {name}: expected floating numbers, found {found[name].dtype}")


def _check_finite(tensors: dict[str, Tensor], where: str) -> None:
    for name, value in tensors.items():
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{where}: {name}: expected finite values, found NaN or infinity")
