"""For every test folder: pytest's own runner, with which the plugin is tested, and memory that goes back in time."""

import ctypes
import sys

pytest_plugins = ["pytester"]


def pytest_runtest_teardown(item, nextitem):
    """After each file and each slow test, give back what its tensors left: glibc keeps gigabytes of freed blocks."""
    last = nextitem is None or nextitem.path != item.path
    if sys.platform == "linux" and (last or item.get_closest_marker("slow")):
        # Other C libraries have no such function, and keep less.
        getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0)(0)
