"""How often torch.compile may compile a network that is called at several sizes."""

from collections.abc import Sequence

from fmcheck.record.compiled import CountedCall

__all__ = ["compilations_allowed", "numbers_allowed"]


def compilations_allowed(calls: Sequence[CountedCall]) -> int:
    """Bound on the calls that compile, from the sizes that varied.

    The first call is compiled for its sizes as constants. Where an axis has another size the compiler makes it a symbol
    (automatic dynamic shapes): one compilation for every kind of axis that varies. Behind a break of the graph the rest
    of the function is compiled on its own, and takes its sizes for constants once more: another one. Axes that always
    have the same size as each other (the rows of state, time and indicator) are one kind. A size of 1 is never covered
    by a symbol, since it broadcasts: one for every kind of axis that had it. A Python number counts as in
    `numbers_allowed`, and every other kind of call (arguments present or absent, dtypes) has all of that for itself.
    """
    kinds: dict[tuple[object, ...], list[CountedCall]] = {}
    for call in calls:
        kinds.setdefault(_kind(call), []).append(call)
    return sum(_allowed(group) for group in kinds.values())


def numbers_allowed(call: CountedCall) -> int:
    """Compilations for the Python numbers among the arguments of a call.

    Each is a constant at first, and a symbol once it has changed; a 0 or a 1 is a constant for itself.
    """
    return 2 * call.numbers


def _allowed(calls: Sequence[CountedCall]) -> int:
    axes = zip(*((size for tensor in call.sizes for size in tensor) for call in calls), strict=True)
    varying = {sizes for sizes in axes if len(set(sizes)) > 1}
    return 1 + sum(min(2, len(set(sizes)) - 1) + (1 in sizes) for sizes in varying) + numbers_allowed(calls[0])


def _kind(call: CountedCall) -> tuple[object, ...]:
    """A signature without sizes."""
    ranks = tuple(len(tensor) for tensor in call.sizes)
    return ranks, *(leaf[0] if isinstance(leaf, tuple) else leaf for leaf in call.signature)
