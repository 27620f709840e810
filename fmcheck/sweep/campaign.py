"""The runs of a sweep, made one after the other, kept as they finish, and summed up."""

import time
from collections.abc import Callable
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
from fmcheck.sweep.settings import Key, Settings
from fmcheck.sweep.store import Store, weights_digest
from fmcheck.sweep.summary import Row, rows_of
from fmcheck.wish import Wish

__all__ = ["Campaign", "Sweep"]

# Calls without the recorder for each setting: the median of three.
_TIMED = 3
_SCHEMA = 1


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
            DeclarationError: every run raised, the memory is exhausted, or the judge raised.
        """
        started = time.perf_counter()
        found_before = len(self._keys) - len(self.missing)
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
        case = self.settings.case_of(key)
        # The global generators are seeded too: a sampler that draws from them is paired all the same.
        wish = Wish(str(key), case, disturb_rng=case.seed)
        try:
            run = self._session.run(wish)
            if run.failure:
                raise NotInformative(run.failure)
            images = pictures_of(run)
        except NotInformative as reason:
            self._errors[key.setting] = str(reason)
            return
        except MemoryError as error:
            raise DeclarationError(
                f"{key}: out of memory ({error}); use a smaller --batch-size with --fresh. Finished runs are in "
                f"{self.store.folder}"
            ) from error
        seconds = bare_seconds(self._session, case) if self._timed and key.batch == 0 and key.seed < _TIMED else None
        found = measured(run, images, self._unguided(key, images), self.subject.judge, seconds)
        off = self._spec.guidance_weight(key.scale) == 0
        self.store.add(key, found, images, *self._range, exact=off)
        # Traces hold every state; a sweep would fill the memory with them.
        self._session.forget()

    def _unguided(self, key: Key, images: Tensor) -> Tensor | None:
        scale = self.settings.unguided_scale(self._spec)
        if scale is None:
            return None
        return images if scale == key.scale else self.store.exact(Key(key.steps, scale, key.seed, key.batch))
