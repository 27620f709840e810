"""For every test folder: pytest's own runner, with which the plugin is tested, and memory that goes back in time."""

import ctypes
import sys

pytest_plugins = ["pytester"]


def pytest_runtest_teardown(item, nextitem):
    """After each file, give back what its tensors left: glibc keeps freed blocks, gigabytes of them in a long run."""
    if sys.platform == "linux" and (nextitem is None or nextitem.path != item.path):
        # Other C libraries have no such function, and keep less.
        getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0)(0)
