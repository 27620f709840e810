"""The proposal as a Python file with the evidence for every line, and the table of the configuration."""

import os
import re
import textwrap
from pathlib import Path
from typing import Any

import tomlkit
from jinja2 import Environment

from fmcheck.errors import DeclarationError
from fmcheck.init.proposal import Proposal

__all__ = ["add_table", "rendered", "require_place", "write_proposal"]

_TEMPLATE = '''"""A subject for {{ target }}, proposed by `fmcheck init`.

Everything here was guessed from a few runs; the comments say from what. Read them, correct what is wrong, and run
`fmcheck run {{ module }}:subject`.
"""

{% if imports %}from importlib import import_module

{% endif %}{% if jaxtyping %}from jaxtyping import Float
from torch import Tensor

{% endif %}import {{ source }} as source
from fmcheck import Case, FlowSpec, Point, Request, Subject
{% for line in ambiguous %}
# AMBIGUOUS {{ line }}{% endfor %}{% for line in missing %}
# TODO {{ line }}{% endfor %}{% for line in unknown %}
# NOT FOUND {{ line }}{% endfor %}


def build(case: Case):
    return {{ build }}

{% if tokens %}
def tokenize(model, prompts):
    made = {{ tokens }}
    return {{ made }}

{% endif %}
# Of {{ signature }}
def generate(model, request: Request):
    return {{ generate }}


subject = Subject(
    name="{{ name }}",
    build=build,
    generate=generate,{% if tokens %}
    tokenize=tokenize,{% endif %}{% if entry %}
    entry="{{ entry }}",{% endif %}{% for role, text, why in points %}
    # {{ why }}
    {{ role }}={{ text }},{% endfor %}{% if annotations %}
    annotations={ {% for key, value in annotations.items() %}"{{ key }}": {{ value }}, {% endfor %}},{% endif %}{#
    #}{% if edges %}
    # {{ edges[1] }}
    time_edges=lambda case: {{ edges[0] }},{% endif %}
    spec=FlowSpec({% for field, value, why in spec %}
        # {{ why }}
        {{ field }}={{ value }},{% endfor %}
    ),
    case={{ case }},
    dtypes=("float32",),
)
'''


def rendered(proposal: Proposal, module: str) -> str:
    """The text of the file; `module` is its name without `.py`."""
    driver = proposal.driver
    candidate, source, case = driver.candidate, driver.source, driver.case
    tokens = candidate.tokens if candidate.tokens and "request.inputs" in candidate.expression else None
    points = [(role, _point(*found[:3]), found[3]) for role, found in proposal.points.items()]
    if "velocity" not in proposal.points:
        points.insert(0, ("velocity", '""', "TODO: dotted path of the velocity network"))
    lines = [*proposal.missing]
    if proposal.value("grid") == "declared" and proposal.time_edges is None:
        proposal.time_edges = ("[k / case.num_steps for k in range(case.num_steps + 1)]", "TODO: the K + 1 flow times")
    text = (
        Environment(autoescape=False)
        .from_string(_TEMPLATE)
        .render(
            target=source.target,
            module=module,
            source=source.module.__name__,
            imports="import_module(" in candidate.expression + (proposal.time_edges or ("",))[0],
            jaxtyping=bool(proposal.annotations),
            annotations=proposal.annotations,
            ambiguous=proposal.ambiguous,
            missing=lines,
            unknown=proposal.unknown,
            build=source.expression,
            tokens=tokens.text if tokens else "",
            made=_made(tokens) if tokens else "",
            signature=" ".join(candidate.signature.split()),
            generate=_broken(candidate.expression + candidate.accessor),
            name=source.target.partition(":")[0].rpartition(".")[2],
            entry=candidate.entry if candidate.roles else "",
            points=points,
            edges=proposal.time_edges,
            spec=[(name, _literal(value), why) for name, (value, why) in proposal.spec.items()],
            case=f"Case(height={case.height}, width={case.width}, num_steps=4, guidance_scale={case.guidance_scale})",
        )
    )
    return _folded(text)


def _made(tokens: Any) -> str:
    names = ", ".join(f'"{name}"' for name in tokens.names)
    if tokens.mapping:
        return "dict(made)"
    return f"{{{names}: made}}" if tokens.single else f"dict(zip(({names},), made, strict=True))"


def _literal(value: Any) -> str:
    """Python of a value, strings in double quotes."""
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _broken(call: str) -> str:
    """A long call over several lines, one keyword argument each."""
    return re.sub(r", (?=[a-z_]\w*=)", ",\n        ", call, flags=re.IGNORECASE) if len(call) > 100 else call


def _point(path: str, arguments: dict[str, Any], output: Any) -> str:
    known = ", ".join(f'"{key}": {_literal(value)}' for key, value in arguments.items())
    tail = "" if output is None else f", output={_literal(output)}"
    return f'Point("{path}", arguments={{{known}}}{tail})'


def _folded(text: str) -> str:
    """Comments of many words over several lines."""
    lines: list[str] = []
    for line in text.splitlines():
        bare = line.lstrip()
        if bare.startswith("# ") and len(line) > 118:
            indent = " " * (len(line) - len(bare)) + "# "
            lines += textwrap.wrap(bare[2:], 116 - len(indent), initial_indent=indent, subsequent_indent=indent)
        else:
            lines.append(line.rstrip())
    return "\n".join(lines) + "\n"


def write_proposal(proposal: Proposal, path: Path, module: str | None = None) -> None:
    """Write the file, which says that it is imported as `module`.

    Raises:
        DeclarationError: it exists.
    """
    _refuse_existing(path)
    path.write_text(rendered(proposal, module or path.stem), encoding="utf-8")


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise DeclarationError(f"init: {path} exists and is not overwritten; give another --output, or move it away")


def require_place(path: Path) -> str:
    """Where the file can be written and imported from: nothing of the user's is ever overwritten.

    Returns the name of its module, as seen from the current folder.

    Raises:
        DeclarationError: the file exists, has no folder, or no name that Python can import.
    """
    _refuse_existing(path)
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise DeclarationError(f"init: --output {path}: {path.parent} is no folder that can be written")
    place = path.resolve()
    here = Path.cwd().resolve()
    parts = place.relative_to(here).with_suffix("").parts if place.is_relative_to(here) else ()
    if path.suffix != ".py" or not parts or not all(part.isidentifier() for part in parts):
        raise DeclarationError(
            f"init: --output {path}: expected the name of a Python module in the current folder or below, such as "
            "fmcheck_subject.py"
        )
    return ".".join(parts)


def add_table(folder: Path, subject: str) -> str | None:
    """Put `[tool.fmcheck]` into the folder's pyproject.toml; the table as text where that cannot be done.

    Raises:
        DeclarationError: the file cannot be read as TOML.
    """
    text = f'[tool.fmcheck]\nsubject = "{subject}"\n'
    path = folder / "pyproject.toml"
    if not path.is_file():
        return text
    try:
        document = tomlkit.parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DeclarationError(f"{path}: cannot be read as TOML: {error}") from error
    tool: Any = document.get("tool")
    if tool is not None and "fmcheck" in tool:
        return text
    if tool is None:
        tool = document["tool"] = tomlkit.table(is_super_table=True)
    table = tomlkit.table()
    table["subject"] = subject
    tool["fmcheck"] = table
    path.write_text(tomlkit.dumps(document), encoding="utf-8")
    return None
