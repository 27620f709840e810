"""Hypothesis' example database, with the examples of every rule under a key of their own."""

from collections.abc import Iterable

from hypothesis.database import ExampleDatabase

__all__ = ["Store"]


class Store(ExampleDatabase):
    """Passes everything on to a database, and remembers the last example that was saved.

    A search stops at a new failure, whose example Hypothesis saves just then; so the one remembered is its, and can be
    saved for every rule that it breaks.
    """

    def __init__(self, inner: ExampleDatabase, name: str) -> None:
        super().__init__()
        self._inner = inner
        self._name = name
        self.last: bytes | None = None

    def key(self, code: str) -> bytes:
        """The key of a rule's examples for this subject."""
        return f"fmcheck {self._name} {code}".encode()

    def knows(self, code: str) -> bool:
        """Whether there are examples of a rule."""
        return next(iter(self._inner.fetch(self.key(code))), None) is not None

    def save(self, key: bytes, value: bytes) -> None:
        self.last = value
        self._inner.save(key, value)

    def fetch(self, key: bytes) -> Iterable[bytes]:
        return self._inner.fetch(key)

    def delete(self, key: bytes, value: bytes) -> None:
        self._inner.delete(key, value)

    def move(self, src: bytes, dest: bytes, value: bytes) -> None:
        self._inner.move(src, dest, value)
