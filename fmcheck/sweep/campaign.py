"""The runs of a sweep, made one after the other, kept as they finish, and summed up."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fmcheck import __version__
from fmcheck.errors import DeclarationError, NotInformative
from fmcheck.session import Session
from fmcheck.subject import Subject
from fmcheck.sweep.measuring import bare_seconds, measured, pictures_of
from fmcheck.sweep.recommend import Advice, advise
from fmcheck.sweep.settings import Key, Settings, is_off
from fmcheck.sweep.store import Store, pixels_of, weights_digest
from fmcheck.sweep.summary import Row, rows_of
from fmcheck.wish import Run, Wish

__all__ = ["Campaign", "Sweep"]

# Calls without the recorder for each setting: the median of three.
_TIMED = 3
_SCHEMA = 1
# RMS in levels of 255 that pictures of the same run may differ by, on devices that do not repeat every bit.
_SAME_LEVELS = 1.0
# Scores of the same pictures, from a judge that is a network on such a device.
_SAME_SCORES = 1e-3


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A sweep that came to its end.

    Attributes:
        rows: a row for every (steps, scale), in the order asked for, the unguided one first where it was added.
        advice: the recommended setting, or why there is none.
        found_before: runs that were taken from the folder.
    """

    target: str
    subject: Subject
    settings: Settings
    store: Store = field(repr=False)
    rows: list[Row]
    advice: Advice
    found_before: int
    seconds: float


class Campaign:
    """A sweep in a folder; :meth:`run` makes what is still missing.

    Args:
        target: the subject as the user named it.
        folder: where finished runs are kept.
        fresh: forget what is there.
        timed: also make calls without the recorder, for their time.

    Raises:
        DeclarationError: a case that the subject cannot have, or a folder of another sweep.
    """

    def __init__(
        self,
        target: str,
        subject: Subject,
        settings: Settings,
        folder: Path,
        *,
        fresh: bool = False,
        timed: bool = True,
    ) -> None:
        self.target, self.settings, self._timed = target, settings, timed
        self._session = Session(subject.but(case=settings.case.but(prompts=settings.batches[0])), thorough=False)
        self.subject = self._session.subject
        self.store = Store(folder, self._identity(), fresh=fresh)
        self._spec = self.subject.spec
        self._range = self._spec.image_range
        self._keys = list(settings.keys(self._spec))
        self.missing = [key for key in self._keys if key not in self.store.entries]
        self._errors: dict[tuple[int, float], str] = {}

    def _identity(self) -> dict[str, Any]:
        """What runs must share to be compared. Scales, steps and seeds may be added later."""
        settings, case = self.settings, self.settings.case
        model, _ = self._session.model(case)
        judge = self.subject.judge
        return {
            "schema": _SCHEMA,
            "subject": self.target,
            "weights": weights_digest(model),
            "spec": self.subject.spec.as_table(),
            "size": [case.height, case.width],
            "dtype": case.dtype,
            "device": case.device,
            "seed": case.seed,
            "prompts": list(settings.prompts),
            "batch_size": settings.batch,
            "judge": None if judge is None else judge.headline,
            "fmcheck": __version__,
            "torch": torch.__version__,
        }

    def run(self, say: Callable[[str], None] = lambda _: None, advance: Callable[[], None] = lambda: None) -> Sweep:
        """Make the missing runs and sum up all.

        Args:
            say: called with the name of every run before it is made; `advance` after it.

        Raises:
            DeclarationError: every run raised, the memory is exhausted, the judge raised, or a finished run comes out
                otherwise now.
        """
        started = time.perf_counter()
        found_before = len(self._keys) - len(self.missing)
        say("finished runs again")
        self._confirm()
        for key in self.missing:
            say(f"{key.steps} steps, scale {key.scale:g}")
            if key.setting not in self._errors:
                self._make(key)
            advance()
        if len(self._errors) == len({key.setting for key in self._keys}):
            raise DeclarationError(
                f"subject {self.subject.name!r}: every run raised; {next(iter(self._errors.values()))}"
            )
        rows = rows_of(self.settings, self._spec, self.store.entries, self._errors)
        return Sweep(
            target=self.target,
            subject=self.subject,
            settings=self.settings,
            store=self.store,
            rows=rows,
            advice=advise(rows, self.subject.judge),
            found_before=found_before,
            seconds=time.perf_counter() - started,
        )

    def _make(self, key: Key) -> None:
        try:
            run, images = self._made(key)
            unguided = self._unguided(key, images)
            found = measured(run, images, unguided, self.subject.judge, self._time_of(key))
            # Without its unguided run, which raised, it is made again with it when the sweep goes on.
            lacking = unguided is None and self.settings.unguided_scale(self._spec) is not None
            exact = is_off(self._spec, key.scale)
            self.store.add(key, found, images, *self._range, exact=exact, listed=not lacking)
        except NotInformative as reason:
            self._errors[key.setting] = str(reason)
        finally:
            # Traces hold every state; a sweep would fill the memory with them.
            self._session.forget()

    def _made(self, key: Key) -> tuple[Run, Tensor]:
        """The run and its pictures.

        Raises:
            NotInformative: it raised.
            DeclarationError: it has no room in the memory, or makes no pictures.
        """
        case = self.settings.case_of(key)
        try:
            # The global generators are seeded too: a sampler that draws from them is paired all the same.
            run = self._session.run(Wish(str(key), case, disturb_rng=case.seed))
        except MemoryError as error:
            raise DeclarationError(
                f"{key}: out of memory ({error}); use a smaller --batch-size with --fresh. Finished runs are in "
                f"{self.store.folder}"
            ) from error
        if run.failure:
            raise NotInformative(run.failure)
        return run, pictures_of(run)

    def _time_of(self, key: Key) -> float | None:
        timed = self._timed and key.batch == 0 and key.seed < _TIMED
        return bare_seconds(self._session, self.settings.case_of(key)) if timed else None

    def _confirm(self) -> None:
        """Make finished runs again, the mildest and the most guided one: a sampler, schedule or judge that has changed
        shows in no setting, and changed guidance in no unguided picture.

        Raises:
            DeclarationError: the pictures or their scores are others now.
        """
        finished = [key for key in self._keys if key in self.store.entries]
        if not finished:
            return

        def strength(key: Key) -> float:
            return 0.0 if is_off(self._spec, key.scale) else abs(self._spec.guidance_weight(key.scale))

        for key in dict.fromkeys([min(finished, key=strength), max(finished, key=strength)]):
            self._confirm_one(key)

    def _confirm_one(self, key: Key) -> None:
        kept = self.store.pixels(key, *self._range)
        try:
            run, images = self._made(key)
            now = pixels_of(images, *self._range)
            apart = "others now" if kept is None else _apart(now, kept)
            exact = self.store.exact(key)
            scored = measured(run, images if exact is None else exact, None, self.subject.judge, None).scores
            same = exact is not None or (kept is not None and torch.equal(now, kept))
        except NotInformative as reason:
            apart = str(reason)
        finally:
            self._session.forget()
        if not apart and same and _scored_apart(scored, self.store.entries[key].scores):
            apart = "the same pictures have other scores now"
        if apart:
            raise DeclarationError(
                f"--out {self.store.folder}: {key}, made again: {apart}. The sampler or the judge has "
                "changed since; name another folder, or start over with --fresh"
            )

    def _unguided(self, key: Key, images: Tensor) -> Tensor | None:
        scale = self.settings.unguided_scale(self._spec)
        if scale is None:
            return None
        return images if scale == key.scale else self.store.exact(Key(key.steps, scale, key.seed, key.batch))


def _apart(now: Tensor, kept: Tensor) -> str:
    """How the pictures differ, by more than other kernels make of the same numbers; "" where they do not."""
    if now.shape != kept.shape:
        return f"the pictures are {list(now.shape[1:])} now and were {list(kept.shape[1:])}"
    levels = float((now.double() - kept.double()).square().mean().sqrt())
    return f"the pictures differ by {levels:.3g} of 255 levels (RMS)" if levels > _SAME_LEVELS else ""


def _scored_apart(now: Mapping[str, list[float | None]], before: Mapping[str, list[float | None]]) -> bool:
    pairs = [(a, b) for name in before for a, b in zip(now.get(name, []), before[name], strict=False)]
    known = [abs(a - b) for a, b in pairs if a is not None and b is not None]
    return now.keys() != before.keys() or max(known, default=0.0) > _SAME_SCORES
