"""Worker processes: what `torchrun` would give them, whatever ends them, and that nothing of them is left."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from fmcheck.case import Case
from fmcheck.errors import DeclarationError, InternalError, NotInformative
from fmcheck.ranks import pool
from fmcheck.ranks.pool import Ranks
from fmcheck.ranks.share import Share
from fmcheck.session import Session
from fmcheck.subject import Subject
from fmcheck.subjects import load_subject
from fmcheck.wish import Wish
from tests.ranks import toy_rank_subject as toys

CASE = toys.clean.case.with_batch(3).but(num_steps=1)
ROOT = Path(__file__).parents[2]


def _load(name: str) -> Subject:
    return load_subject(f"tests.ranks.toy_rank_subject:{name}")


def _no_load() -> Subject:
    raise DeclarationError("the module has no such subject")


def _dies() -> Subject:
    os._exit(9)


def _wish(ranks: int = 2, kind: str = "part") -> Wish:
    return Wish("ranks", CASE, kind, disturb_rng=1, ranks=ranks)


def _run(name: str, *wishes: Wish, limit: float = 60.0) -> list[tuple[Share, ...]]:
    with Ranks(partial(_load, name), 2, time_limit=limit) as ranks:
        return [ranks.run(wish, toys.clean.spec) for wish in wishes or [_wish()]]


@pytest.fixture(autouse=True)
def _nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Processes, files, environment, random state and threads are as before, however a test ends."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = _environment(), random.getstate(), torch.get_rng_state(), torch.get_num_threads()
    yield
    assert multiprocessing.active_children() == []
    assert list(tmp_path.glob("fmcheck-ranks-*")) == []
    assert (_environment(), random.getstate(), torch.get_num_threads()) == (before[0], before[1], before[3])
    assert torch.equal(torch.get_rng_state(), before[2])


def _environment() -> dict[str, str]:
    # pytest writes into it which part of a test is under way.
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}


class TestBefore:
    """What is refused before any process is started."""

    @pytest.mark.parametrize("count", [0, -1, 2.0, True, "2"])
    def test_a_number_that_is_none(self, count: object) -> None:
        with pytest.raises(DeclarationError, match="nproc: expected a number of processes from 1; found"):
            Ranks(_no_load, count)  # type: ignore[arg-type]

    def test_more_ranks_than_prompts(self) -> None:
        with pytest.raises(DeclarationError, match="nproc 8: expected at most 7, the number of prompts"):
            Ranks(_no_load, 8)

    def test_fewer_gpus_than_ranks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        with pytest.raises(DeclarationError, match="nproc 2: this machine has 1 GPUs, and every rank needs its own"):
            Ranks(_no_load, 2).check(Case(device="cuda"))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        Ranks(_no_load, 2).check(Case(device="cuda:1"))

    def test_a_device_without_process_groups(self) -> None:
        with pytest.raises(DeclarationError, match="nproc 2: runs on several ranks need cpu or cuda; found 'mps'"):
            Ranks(_no_load, 2).check(Case(device="mps"))

    def test_why_there_are_no_ranks(self) -> None:
        assert Ranks().refusal == "runs with several processes only: --nproc 2"
        assert "no way to this subject" in Ranks(None, 2).refusal
        assert Ranks(_no_load, 2).refusal == ""
        session = Session(toys.clean, ranks=Ranks(_no_load, 2))
        assert session.plan.nproc == 2

    def test_nothing_is_started_before_the_first_run(self) -> None:
        with Ranks(_no_load, 2):
            assert multiprocessing.active_children() == []

    def test_a_function_that_cannot_be_sent(self) -> None:
        with (
            Ranks(lambda: toys.clean, 2) as ranks,
            pytest.raises(DeclarationError, match="expected a function of a module"),
        ):
            ranks.run(_wish(), toys.clean.spec)


def test_a_rank_sees_what_torchrun_would_show_it() -> None:
    """One process alone first, then two, in the same processes."""
    alone, both = _run("reporting", _wish(1), _wish(2))
    # rank, world size, sum over the ranks, threads, address; then RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE
    assert [share.images.flatten().tolist() for share in alone] == [[0, 1, 1, 1, 1, 0, 0, 1, 1]]
    assert [share.images.flatten().tolist() for share in both] == [
        [0, 2, 3, 1, 1, 0, 0, 2, 2],
        [1, 2, 3, 1, 1, 1, 1, 2, 2],
    ]
    assert [share.indices for share in both] == [(0,), (1,)]


@pytest.mark.slow
class TestEnds:
    """However a rank ends, it is said, and the others are not left waiting."""

    @pytest.mark.parametrize(
        ("name", "error"),
        [
            ("aborting", "the process died with SIGABRT"),
            ("leaving", "the process died with exit code 3"),
            ("raising", "ValueError: prompt 3 is empty"),
        ],
    )
    def test_one_rank_ends(self, name: str, error: str) -> None:
        (shares,) = _run(name)
        assert shares[1].error == error
        first = min((share for share in shares if share.error), key=lambda share: share.ended)
        assert first.rank == 1, "what the others say is a consequence"

    def test_one_rank_runs_out_of_memory(self) -> None:
        for name in ("killed", "exhausted"):
            (shares,) = _run(name)
            assert shares[1].exhausted, name

    @pytest.mark.parametrize("name", ["hanging", "skipping"])
    def test_a_rank_that_gives_no_answer(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pool, "_GRACE", 1.0)
        started = time.monotonic()
        (shares,) = _run(name, limit=8.0)
        assert time.monotonic() - started < 60
        assert any("no answer within the time limit of 8 s; killed" in share.error for share in shares)

    def test_others_are_started_after_a_failure(self) -> None:
        with Ranks(partial(_load, "raising"), 2) as ranks:
            assert any(share.error for share in ranks.run(_wish(), toys.clean.spec))
            assert multiprocessing.active_children() == []
            (share,) = ranks.run(_wish(1), toys.clean.spec)
            assert share.indices == (0, 1, 2)

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("no_pair", "subject 'toy on ranks': generate_rank must return a pair"),
            ("unbuildable", "subject 'toy on ranks': build raised KeyError"),
        ],
    )
    def test_a_wrong_declaration_is_raised_here(self, name: str, message: str) -> None:
        with pytest.raises(DeclarationError, match=message):
            _run(name)

    def test_a_shard_that_raises_is_a_failure_of_the_run(self) -> None:
        (shares,) = _run("unshardable", _wish(kind="shard"))
        assert [share.error for share in shares] == ["shard raised NotImplementedError: no heads for 2 ranks"] * 2

    def test_a_load_that_raises(self) -> None:
        with Ranks(_no_load, 2) as ranks, pytest.raises(DeclarationError, match="the module has no such subject"):
            ranks.run(_wish(), toys.clean.spec)

    def test_a_load_that_ends_the_process(self) -> None:
        with Ranks(_dies, 2) as ranks, pytest.raises(InternalError, match="rank 0 ended with exit code 9 before its"):
            ranks.run(_wish(), toys.clean.spec)

    def test_an_interrupt_ends_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(Ranks, "_collected", interrupted)
        with pytest.raises(KeyboardInterrupt):
            _run("clean")

    def test_a_session_without_memory_says_so(self) -> None:
        with Ranks(partial(_load, "exhausted"), 2) as ranks:
            session = Session(toys.exhausted, ranks=ranks)
            with pytest.raises(MemoryError, match="rank . of 2: MemoryError"):
                session.run(_wish())

    def test_a_killed_parent_leaves_nobody(self, tmp_path: Path) -> None:
        code = (
            "import sys; from tests.ranks.test_ranks_pool import *\n"
            "from tests.ranks.test_ranks_pool import _load, _wish\n"
            "ranks = Ranks(partial(_load, 'hanging'), 2); ranks._started()\n"
            "print(*[p.pid for p in multiprocessing.active_children()], flush=True)\n"
            "ranks.run(_wish(), toys.clean.spec)"
        )
        environment = {**os.environ, "TMPDIR": str(tmp_path)}
        command = [sys.executable, "-c", code]
        parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment)
        assert parent.stdout is not None
        children = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(children) == 2
        parent.kill()
        parent.wait()
        parent.stdout.close()
        deadline = time.monotonic() + 30
        while any(_lives(pid) for pid in children) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not [pid for pid in children if _lives(pid)]


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()


def test_a_premise_that_fails_in_a_process_stays_a_premise() -> None:
    from fmcheck.processes import crossing, ending, opened

    crossed = crossing(NotInformative("one row"))
    assert type(crossed) is NotInformative
    with pytest.raises(NotInformative, match="one row"):
        opened(crossed)
    assert str(crossing(KeyError("x"))) == "KeyError: 'x'"
    assert [ending(code) for code in (0, 3, -signal.SIGTERM, None)] == [
        "exit code 0",
        "exit code 3",
        "SIGTERM",
        "an unknown end",
    ]
