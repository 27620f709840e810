"""Reading a reproduction file that anybody may have written: checked to the last key before anything is imported.

Nothing in it is evaluated, called or used as a path. What a file may ask for is limited, so that a replay cannot be
made to take all the memory or time of a machine: see the numbers below.
"""

import re
import stat
from pathlib import Path
from typing import Any

from fmcheck.errors import DeclarationError, did_you_mean
from fmcheck.outcome import Finding
from fmcheck.repro.digest import PROJECTIONS, Print
from fmcheck.repro.file import LONGEST_TEXT, SCHEMA, Reproduction
from fmcheck.repro.replayed import ENDINGS
from fmcheck.repro.settings import MOST_THREADS, PRECISIONS, VERSIONS, Settings
from fmcheck.repro.table import Table, read_toml, short
from fmcheck.repro.target import check_target
from fmcheck.rules import all_rules
from fmcheck.scenario import Scenario

__all__ = ["MOST_BYTES", "MOST_COST", "parse", "read"]

MOST_BYTES = 256 * 1024
# Pixels x steps x batch, over all calls: 1024 x 1024 at 50 steps for 20,000 prompts.
MOST_COST = 2**40
_MOST_SIDE, _MOST_BATCH, _MOST_STEPS = 16384, 4096, 10_000
_MOST_CALLS, _MOST_ASKS, _MOST_PRINTS = 128, 128, 1000
_MOST_LETTERS = 64 * 1024
_MOST_SECONDS = 24 * 3600.0
_MESSAGE = 600
_CODE = re.compile(r"[A-Z]{2,4}\d{3}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_KEYS = ("schema", "subject", "expect", "time_limit", "finding", "scenario", "versions", "settings", "prints")
_FINDING = ("code", "name", "severity", "message", "where", "diagnosis", "used", "allowed", "ratio", "also")


def read(path: Path) -> Reproduction:
    """The reproduction in a file.

    Raises:
        DeclarationError: a file that cannot be read, or holds none; names the file and what is wrong in it.
    """
    return parse(_text(path), str(path))


def _text(path: Path) -> str:
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            what = "a folder" if stat.S_ISDIR(mode) else "no regular file"
            raise DeclarationError(f"{path}: expected a reproduction file; found {what}")
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except DeclarationError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DeclarationError(f"{str(path)!r}: cannot be read: {reason}") from error
    if len(content) > MOST_BYTES:
        raise DeclarationError(f"{path}: expected a reproduction of at most {MOST_BYTES} bytes; found a larger file")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DeclarationError(f"{path}: expected UTF-8; found the byte 0x{content[error.start]:02x}") from error


def parse(text: str, name: str = "reproduction") -> Reproduction:
    """The reproduction in a text; `name` stands for it in messages.

    Raises:
        DeclarationError: no TOML, an unknown key, a wrong type, a rule or a form of another time, or too large a case.
    """
    try:
        return _reproduction(read_toml(text))
    except DeclarationError as error:
        raise DeclarationError(f"{name}: {short(str(error), _MESSAGE)}") from error


def _reproduction(data: dict[str, Any]) -> Reproduction:
    _check_schema(data)
    top = Table(data, "file", _KEYS)
    target = top.take("subject", str)
    check_target(target)
    finding, also = _finding(top.take("finding", dict))
    return Reproduction(
        target=target,
        finding=finding,
        scenario=_scenario(top.take("scenario", dict)),
        also=also,
        expect="reproduced" if top.choice("expect", ("fixed", "reproduced"), "fixed") == "reproduced" else "fixed",
        time_limit=top.seconds("time_limit", _MOST_SECONDS),
        versions=_versions(top.take("versions", dict)),
        settings=_settings(top.take("settings", dict)),
        prints=tuple(map(_print, top.array("prints", dict, _MOST_PRINTS))),
    )


def _check_schema(data: dict[str, Any]) -> None:
    """First of all: in a file of another form every other key may be unknown too."""
    schema = data.get("schema")
    if type(schema) is not int or schema != SCHEMA:
        found = short(repr(schema)) if "schema" in data else "no such key"
        raise DeclarationError(f"schema: expected {SCHEMA}, which this fmcheck reads; found {found}")


def _finding(value: dict[str, Any]) -> tuple[Finding, tuple[str, ...]]:
    table = Table(value, "finding", _FINDING)
    severity = table.choice("severity", ("error", "warning"))
    name = table.text("name", LONGEST_TEXT)
    finding = Finding(
        code=_checked_code(table.take("code", str), name),
        name=name,
        severity="error" if severity == "error" else "warning",
        message=table.text("message", LONGEST_TEXT),
        where=table.text("where", LONGEST_TEXT, ""),
        used=table.number("used"),
        allowed=table.number("allowed"),
        ratio=table.number("ratio"),
        diagnosis=table.text("diagnosis", LONGEST_TEXT) if "diagnosis" in value else None,
    )
    also = table.array("also", str, _MOST_ASKS) if "also" in value else []
    return finding, tuple(also)


def _checked_code(code: str, name: str = "") -> str:
    """A rule's code. Those that begin with FM are known now; others may come with the subject's module."""
    known = {rule.code: rule.name for rule in all_rules()}
    if code in (*known, *ENDINGS) or (_CODE.fullmatch(code) and not code.startswith("FM")):
        return code
    # The name says more about what was meant than a number does.
    family = [other for other in known if other[:3] == code[:3]]
    hint = did_you_mean(short(name), known.values()) or did_you_mean(short(code), family or [*known, *ENDINGS])
    raise DeclarationError(
        f"no rule {short(code)!r} in this fmcheck{hint}; `fmcheck rules` lists them: the file is from another version, "
        "or damaged"
    )


def _scenario(value: dict[str, Any]) -> Scenario:
    calls = value.get("calls")
    if isinstance(calls, list) and len(calls) > _MOST_CALLS:
        raise DeclarationError(f"scenario, calls: expected at most {_MOST_CALLS}; found {len(calls)}")
    scenario = Scenario.from_table(value)
    if len(scenario.asks) > _MOST_ASKS:
        raise DeclarationError(f"scenario, asks: expected at most {_MOST_ASKS}; found {len(scenario.asks)}")
    for code in scenario.asks:
        _checked_code(code)
    for call in scenario.calls:
        case = call.case
        for name, most, found in (
            ("height", _MOST_SIDE, case.height),
            ("width", _MOST_SIDE, case.width),
            ("num_steps", _MOST_STEPS, case.num_steps),
            ("prompts", _MOST_BATCH, case.batch),
        ):
            if found > most:
                raise DeclarationError(f"case, {name}: expected at most {most} in a reproduction; found {found}")
    letters = sum(len(prompt) for call in scenario.calls for prompt in call.case.prompts)
    if letters > _MOST_LETTERS:
        raise DeclarationError(f"case, prompts: expected at most {_MOST_LETTERS} letters in all; found {letters}")
    if scenario.cost > MOST_COST:
        raise DeclarationError(
            f"scenario: expected pixels x steps x batch of at most {MOST_COST}; found {scenario.cost}"
        )
    return scenario


def _versions(value: dict[str, Any]) -> dict[str, str]:
    table = Table(value, "versions", VERSIONS)
    return {name: table.text(name, LONGEST_TEXT) for name in value}


def _settings(value: dict[str, Any]) -> Settings:
    table = Table(value, "settings", Settings.__dataclass_fields__)
    return Settings(
        threads=table.count("threads", MOST_THREADS, least=1),
        deterministic_algorithms=table.count("deterministic_algorithms", 2),
        cudnn_deterministic=table.take("cudnn_deterministic", bool),
        cudnn_benchmark=table.take("cudnn_benchmark", bool),
        float32_matmul_precision=table.choice("float32_matmul_precision", PRECISIONS),
        cudnn_tf32=table.take("cudnn_tf32", bool),
    )


def _print(value: dict[str, Any]) -> Print:
    table = Table(value, "prints", Print.__dataclass_fields__)
    digest = table.take("digest", str)
    if not _DIGEST.fullmatch(digest):
        raise table.wrong("digest", "64 hexadecimal digits", digest)
    shape = table.array("shape", int, 16)
    if any(side < 0 for side in shape):
        raise table.wrong("shape", "sizes from 0", min(shape))
    projections, rms = table.array("projections", float, PROJECTIONS), table.number("rms")
    if len(projections) != PROJECTIONS or rms is None:
        raise DeclarationError(f"prints: expected rms and {PROJECTIONS} projections; found {len(projections)}")
    return Print(
        run=table.text("run", 200),
        name=table.text("name", 200),
        dtype=table.text("dtype", 200),
        shape=tuple(shape),
        digest=digest,
        not_finite=table.count("not_finite", 2**62),
        rms=rms,
        projections=tuple(projections),
    )
