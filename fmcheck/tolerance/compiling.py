"""How often torch.compile may compile a network that is called at several sizes."""

from fmcheck.record.compiled import CountedCall

__all__ = ["numbers_allowed", "sizes_allowed"]

# With fewer further sizes of an axis nothing can be told.
_TELLING = 4


def sizes_allowed(further: int) -> int:
    """How many of the further sizes of an axis, beyond the first one, may be compiled for.

    The first call is compiled for its sizes as constants. Where an axis has another size the compiler makes it a symbol
    (automatic dynamic shapes), which serves all later ones. Where something breaks the graph, what lies behind is a
    function of its own that takes its sizes for constants once more, when it is first reached: one compilation more
    for every break on the way, however many there are. So the last of several sizes must be served by what there is;
    a network that compiles for that one as well has the size for a constant.
    """
    return further - 1 if further >= _TELLING else further


def numbers_allowed(call: CountedCall) -> int:
    """Compilations for the Python numbers among the arguments of a call.

    Each is a constant at first, and a symbol once it has changed; a 0 or a 1 is a constant for itself.
    """
    return 2 * call.numbers
