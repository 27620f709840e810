"""One gate: subject, rules and settings, merged from the arguments, the configuration and the defaults."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from fmcheck.config import Config, load_config
from fmcheck.outcome import Expected, Outcome, Report
from fmcheck.report.context import Context, cases_of, rerun_command
from fmcheck.rules import get_rule, select_rules
from fmcheck.run import Session, check
from fmcheck.subject import Subject
from fmcheck.subjects import load_subject

__all__ = ["Gate", "prepare"]


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What will be checked, and how its report is judged.

    `native` is the subject with its own case, before any override; `load` makes that one in another process.
    """

    target: str
    subject: Subject
    native: Subject
    select: tuple[str, ...]
    ignore: tuple[str, ...]
    expected: Mapping[str, Expected]
    strict: bool
    min_checked: int
    thorough: bool = False
    nproc: int = 1
    load: Callable[[], Subject] | None = None
    remarks: tuple[str, ...] = ()

    def check(
        self,
        on_run: Callable[[str], None] | None = None,
        on_outcome: Callable[[Outcome], None] | None = None,
        on_judged: Callable[[Session, Report], None] | None = None,
    ) -> Report:
        """Make the runs and judge every selected rule."""
        return check(
            self.subject,
            select=self.select,
            ignore=self.ignore,
            expected=self.expected,
            thorough=self.thorough,
            nproc=self.nproc,
            load=self.load,
            on_run=on_run,
            on_outcome=on_outcome,
            on_judged=on_judged,
        )

    def context(self, rerun: str | None = None) -> Context:
        """The frame of the report; `rerun` is the command that repeats one rule, by default that of `fmcheck run`."""
        return Context(
            target=self.target,
            subject=self.subject,
            rerun=rerun or rerun_command(self.target, self.subject.case, self.native.case, nproc=self.nproc),
            cases=cases_of(self.subject, select_rules(self.select, self.ignore)),
            remarks=self.remarks,
        )


def prepare(
    target: str | None = None,
    *,
    select: Iterable[str] = (),
    ignore: Iterable[str] = (),
    device: str | None = None,
    dtype: str | None = None,
    seed: int | None = None,
    strict: bool | None = None,
    min_checked: int | None = None,
    thorough: bool | None = None,
    nproc: int | None = None,
) -> Gate:
    """Merge arguments over `[tool.fmcheck]` over defaults, and load the subject.

    Raises:
        DeclarationError: a wrong configuration, subject, selection or case.
    """
    configured = load_config()
    target = target or configured.subject or "tiny"
    config = configured.about(target)
    load = partial(load_subject, target, configured.path.parent if configured.path else None)
    native = load()
    changes = {
        "device": config.device if device is None else device,
        "dtype": config.dtype if dtype is None else dtype,
        "seed": config.seed if seed is None else seed,
    }
    case = native.case.but(**{key: value for key, value in changes.items() if value is not None})
    subject = config.applied(native).but(case=case)
    chosen, ignored = tuple(select) or config.select, tuple(ignore) or config.ignore
    codes = {rule.code for rule in select_rules(chosen, ignored)}
    expected = {get_rule(code).code: value for code, value in config.expected.items()}
    return Gate(
        target=target,
        subject=subject,
        native=native,
        select=chosen,
        ignore=ignored,
        expected={code: value for code, value in expected.items() if code in codes},
        strict=config.strict if strict is None else strict,
        min_checked=config.min_checked if min_checked is None else min_checked,
        thorough=config.thorough if thorough is None else thorough,
        nproc=config.nproc if nproc is None else nproc,
        load=load,
        remarks=tuple(_remarks(configured, config, target)),
    )


def _remarks(configured: Config, config: Config, target: str) -> Iterable[str]:
    if config.path is not None:
        yield f"settings from {config.path}"
    if config is not configured and (configured.expected or configured.spec):
        yield f"its spec and expected failures are those of {configured.subject}, so they do not hold for {target}"
