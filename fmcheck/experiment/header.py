"""Header: what an experiment's configuration says about itself, as plain data."""

from dataclasses import dataclass
from datetime import date

from fmcheck.errors import DeclarationError
from fmcheck.experiment.form import FIELDS, draw
from fmcheck.experiment.values import exp_date

__all__ = ["Header"]


@dataclass(frozen=True, kw_only=True)
class Header:
    """The EXP CONFIG META header. Whatever can be constructed can be written and comes back equal when read.

    In a value, line breaks, control characters and repeated blanks become one blank: none can leave its comment.

    Attributes:
        exp_id: `exp_<yyyymmdd>_<x>`, a day of the calendar and letters or digits.
        title: a short one-liner.
        purpose: what the configuration tests.
        key_diffs: the 2 to 4 knobs that distinguish it from the baseline; :func:`as_knob` makes any text one.
        core_params: `lr=1e-4, batch=2048, res=256, seed=0`.
        branch_commit: `main / abc1234`.
        branch_commit, tags, notes: optional; empty means that the header has no such line.

    Raises:
        DeclarationError: a value that its field cannot hold, or the template's text.
    """

    exp_id: str
    title: str
    purpose: str
    key_diffs: tuple[str, ...]
    dataset: str
    hardware: str
    core_params: str
    branch_commit: str = ""
    tags: tuple[str, ...] = ()
    notes: str = ""

    def __post_init__(self) -> None:
        for field in FIELDS:
            try:
                object.__setattr__(self, field.attribute, field.checked(getattr(self, field.attribute)))
            except DeclarationError as error:
                raise DeclarationError(f"Header.{field.attribute}: {error}") from error

    @property
    def date(self) -> date:
        """The day in the experiment's id."""
        return exp_date(self.exp_id)

    def as_lines(self) -> list[str]:
        """The header as comment lines for the top of a YAML, TOML or INI file, without line ends."""
        values = {field.name: (field, getattr(self, field.attribute)) for field in FIELDS}
        return draw({name: field.write(value) for name, (field, value) in values.items() if value})

    def as_text(self) -> str:
        """The lines of :meth:`as_lines` with their line ends."""
        return "".join(f"{line}\n" for line in self.as_lines())
