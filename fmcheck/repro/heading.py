"""The experiment header of a reproduction file."""

from collections.abc import Iterator
from datetime import date

from fmcheck.case import Case
from fmcheck.experiment import Header, as_knob, branch_commit, clean, hardware, new_exp_id
from fmcheck.repro.file import Reproduction, content_hash
from fmcheck.repro.table import short
from fmcheck.scenario import Scenario

__all__ = ["heading"]

_TITLE = 80
_FEWEST, _MOST = 2, 4
_ID_DIGITS = 4


def heading(reproduction: Reproduction, native: Case, *, today: date | None = None) -> str:
    """The header as comment lines. It says when and where, so the file's name must not depend on it.

    Args:
        native: the subject's own case, from which the knobs are told.
    """
    finding, scenario, case = reproduction.finding, reproduction.scenario, reproduction.scenario.last.case
    digits = content_hash(reproduction.target, reproduction.code, scenario)[:_ID_DIGITS].upper()
    device = reproduction.versions.get("device", case.device)
    header = Header(
        exp_id=new_exp_id(digits, today),
        title=f"{finding.code} {finding.name}: {short(clean(finding.message), _TITLE)}",
        purpose=f"reproduce the finding on {reproduction.target}: fmcheck replay {reproduction.name}",
        key_diffs=_knobs(scenario, native),
        dataset="none (seeded noise and the prompts below)",
        hardware=f"{device}; {hardware()}",
        branch_commit=branch_commit(),
        core_params=(
            f"batch={case.batch}, res={case.height}x{case.width}, steps={case.num_steps}, "
            f"guidance={case.guidance_scale!r}, seed={case.seed}"
        ),
        tags=("fmcheck", "reproduction"),
    )
    return header.as_text()


def _knobs(scenario: Scenario, native: Case) -> tuple[str, ...]:
    """What is other than in the native case, at most four; where that is less than two, what is the same."""
    case = scenario.last.case
    pairs = {
        "batch": (case.batch, native.batch),
        "size": (f"{case.height}x{case.width}", f"{native.height}x{native.width}"),
        "steps": (case.num_steps, native.num_steps),
        "guidance": (case.guidance_scale, native.guidance_scale),
        "dtype": (case.dtype, native.dtype),
        "device": (case.device, native.device),
        "seed": (case.seed, native.seed),
    }
    other = [f"{name}={ours} (native {theirs})" for name, (ours, theirs) in pairs.items() if ours != theirs]
    same = [f"{name}={ours} (as native)" for name, (ours, theirs) in pairs.items() if ours == theirs]
    knobs = [*_of_the_calls(scenario), *other]
    padded = [*knobs, *same[: max(_FEWEST - len(knobs), 0)]]
    return tuple(map(as_knob, padded[:_MOST]))


def _of_the_calls(scenario: Scenario) -> Iterator[str]:
    last = scenario.last
    if len(scenario.calls) > 1:
        yield f"calls={len(scenario.calls)} on one object"
    if scenario.asks:
        yield f"rules={' '.join(scenario.asks[:_MOST])}"
    if last.kind != "generate":
        yield f"kind={last.kind}"
    if last.tokens != "plain":
        yield f"tokens={last.tokens}"
    if last.global_seed is not None:
        yield f"global_seed={last.global_seed}"
