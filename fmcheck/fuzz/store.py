"""Hypothesis' example database, with the examples of every rule under a key of their own."""

from collections.abc import Iterable

from hypothesis.database import ExampleDatabase

__all__ = ["Store"]

# Where Hypothesis keeps what is not the smallest, under the key of a test.
_KINDS = (b".secondary", b".pareto")


class Store:
    """Examples of one subject in a database."""

    def __init__(self, inner: ExampleDatabase, name: str) -> None:
        self._inner = inner
        self._name = name

    def key(self, code: str) -> bytes:
        """The key of a rule's examples for this subject."""
        return f"fmcheck {self._name} {code}".encode()

    def knows(self, code: str) -> bool:
        """Whether there are examples of a rule."""
        return next(iter(self.fetch(self.key(code))), None) is not None

    def save(self, key: bytes, value: bytes) -> None:
        self._inner.save(key, value)

    def fetch(self, key: bytes) -> Iterable[bytes]:
        return self._inner.fetch(key)

    def delete(self, key: bytes, value: bytes) -> None:
        self._inner.delete(key, value)

    def under(self, key: bytes) -> ExampleDatabase:
        """The database for one search of Hypothesis, whatever key that has of its own."""
        return _Under(self._inner, key)


class _Under(ExampleDatabase):
    def __init__(self, inner: ExampleDatabase, key: bytes) -> None:
        super().__init__()
        self._inner, self._key = inner, key

    def _ours(self, key: bytes) -> bytes:
        return self._key + next((kind for kind in _KINDS if key.endswith(kind)), b"")

    def save(self, key: bytes, value: bytes) -> None:
        self._inner.save(self._ours(key), value)

    def fetch(self, key: bytes) -> Iterable[bytes]:
        return self._inner.fetch(self._ours(key))

    def delete(self, key: bytes, value: bytes) -> None:
        self._inner.delete(self._ours(key), value)

    def move(self, src: bytes, dest: bytes, value: bytes) -> None:
        self._inner.move(self._ours(src), self._ours(dest), value)
