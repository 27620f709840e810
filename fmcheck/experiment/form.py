"""The form of the header: its fields in order, how each is read and written, and how the block is drawn."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fmcheck.errors import DeclarationError
from fmcheck.experiment.values import clean, parse_exp_id, parse_knobs, parse_tags

__all__ = ["FIELDS", "MARK", "Field", "draw"]

MARK = "EXP CONFIG META"
_TITLE = f"{MARK} (paste at top of your .yaml / .toml / .ini config file)"
_WIDTH = 70
_NAME_WIDTH = 12
_EXAMPLE, _TO_FILL = "e.g.", "=..."

_Parse = Callable[[str], str | tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Field:
    """One field of the header.

    Attributes:
        name: as the file spells it.
        attribute: of `Header`.
        template: what the empty template says there; left standing, it is an error.
        parse: one line of text as the value.
        brackets: around a list when it is written.
    """

    name: str
    attribute: str
    template: str
    required: bool = True
    parse: _Parse = str
    listed: bool = False
    brackets: tuple[str, str] = ("", "")

    def read(self, text: str) -> str | tuple[str, ...]:
        """The value of a line of text.

        Raises:
            DeclarationError: no text, the template's text, or what the field cannot hold.
        """
        line = clean(text)
        if not line:
            hint = "say what it is" if self.required else "say what it is, or remove the line"
            raise DeclarationError(f"expected a value; found none: {hint}")
        if self._is_template(line):
            raise DeclarationError(f"expected a value of your own; found the template's text {line!r}")
        return self.parse(line)

    def write(self, value: str | tuple[str, ...]) -> str:
        """The value as one line of text."""
        left, right = self.brackets
        return value if isinstance(value, str) else f"{left}{', '.join(value)}{right}"

    def checked(self, value: Any) -> str | tuple[str, ...]:
        """The value as it comes back when it is written and read; empty where an optional field has none.

        Raises:
            DeclarationError: another type, no value for a required field, or one that would come back changed.
        """
        cleaned = self._cleaned(value)
        if not cleaned and not self.required:
            return cleaned
        found = self.read(self.write(cleaned))
        if found != cleaned:
            raise DeclarationError(
                f"expected entries that can be told apart in {self.write(cleaned)!r}; found {len(found)} instead of "
                f"{len(cleaned)}: put one that holds a separator into double quotes"
            )
        return cleaned

    def _cleaned(self, value: Any) -> str | tuple[str, ...]:
        if not self.listed:
            if not isinstance(value, str):
                raise DeclarationError(f"expected a string; found {value!r}")
            return clean(value)
        # A plain string is a sequence too, of one-letter entries.
        if not isinstance(value, list | tuple) or not all(isinstance(entry, str) for entry in value):
            raise DeclarationError(f"expected a list or tuple of strings; found {value!r}")
        return tuple(map(clean, value))

    def _is_template(self, line: str) -> bool:
        # The template's tags are tags that somebody may really want, and its date is one that somebody had.
        if self.parse in (parse_tags, parse_exp_id):
            return False
        said, template = line.casefold(), self.template.casefold()
        begun = template.startswith(_EXAMPLE) and said.startswith(_EXAMPLE)
        half_filled = _TO_FILL in template and _TO_FILL in said.replace("…", "...")
        return said == template or begun or half_filled


FIELDS = (
    Field(name="EXP_ID", attribute="exp_id", template="exp_<yyyymmdd>_<x>", parse=parse_exp_id),
    Field(name="TITLE", attribute="title", template="short one-liner"),
    Field(name="PURPOSE", attribute="purpose", template="what this config is testing / ablation"),
    Field(
        name="KEY_DIFFS",
        attribute="key_diffs",
        template="the 2-4 knobs that distinguish this config from the baseline",
        parse=parse_knobs,
        listed=True,
    ),
    Field(name="DATASET", attribute="dataset", template="e.g. 24M t2i"),
    Field(name="HARDWARE", attribute="hardware", template="e.g. A100x64"),
    Field(name="BRANCH/COMMIT", attribute="branch_commit", template="branch / abc1234", required=False),
    Field(name="CORE PARAMS", attribute="core_params", template="lr=..., batch=..., res=..., seed=..."),
    Field(
        name="TAGS",
        attribute="tags",
        template="[ablation, lrx5]",
        required=False,
        parse=parse_tags,
        listed=True,
        brackets=("[", "]"),
    ),
    Field(name="NOTES", attribute="notes", template="any caveat", required=False),
)


def draw(texts: Mapping[str, str]) -> list[str]:
    """The block as comment lines; `texts` maps names of fields to one line each, and the others have no line."""
    fields = [f"{field.name:<{_NAME_WIDTH}}: {texts[field.name]}" for field in FIELDS if field.name in texts]
    return [f"# {line}" for line in ("=" * _WIDTH, _TITLE, "-" * _WIDTH, *fields, "=" * _WIDTH)]
