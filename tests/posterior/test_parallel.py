"""Tasks in processes: the same answers in the same order, errors as they are, progress, one thread per worker."""

from __future__ import annotations

import os

import numpy as np
import pytest

from finetti.errors import FinettiError
from finetti.linalg.system import n_threads
from finetti.posterior import parallel
from finetti.posterior.parallel import run, seeds


def test_in_processes_as_in_this_one():
    tasks = seeds(3, 40)
    seen: list[tuple[str, int, int | None]] = []
    draw = lambda seed: float(np.random.default_rng(seed).normal())  # noqa: E731  a closure travels too
    two = run(draw, tasks, lambda *a: seen.append(a), n_jobs=2, stage="drawing")
    assert two == run(draw, tasks, n_jobs=1) == [draw(t) for t in tasks]
    assert seen[0] == ("drawing", 0, 40)
    assert seen[-1] == ("drawing", 40, 40)
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    where = run(lambda _: (os.getpid(), n_threads()), range(8), n_jobs=2)
    assert all(pid != os.getpid() and threads == 1 for pid, threads in where)
    assert n_threads() >= 1


def test_errors_of_tasks_are_raised_as_they_are():
    def fails(i: int) -> int:
        if i == 5:
            raise FinettiError("five cannot be done")
        return i

    for jobs in (1, 2):
        with pytest.raises(FinettiError, match="five"):
            run(fails, range(8), n_jobs=jobs)


def test_what_cannot_be_sent_is_done_here():
    import threading

    lock = threading.Lock()  # cannot be pickled

    def locked(i: int) -> tuple[int, int]:
        with lock:
            return i, os.getpid()

    assert run(locked, range(6), n_jobs=2) == [(i, os.getpid()) for i in range(6)]


def test_few_or_short_tasks_stay_here(monkeypatch):
    monkeypatch.setattr(parallel, "n_threads", lambda: 2)
    assert set(run(lambda _: os.getpid(), range(30))) == {os.getpid()}
    assert run(lambda i: i, []) == []

    calls = []
    monkeypatch.setattr(parallel, "TRIAL", 0.0)
    monkeypatch.setattr(parallel, "START", 0.0)
    monkeypatch.setattr(parallel, "_in_processes", lambda f, tasks, results, *rest: calls.append(len(results)))
    assert run(lambda i: i, range(9)) == list(range(9))
    assert calls and calls[0] < 9


def test_bad_requests():
    for jobs in (0, -2, 1.5, True):
        with pytest.raises(FinettiError, match="n_jobs"):
            run(abs, [1], n_jobs=jobs)
    with pytest.raises(FinettiError, match="seed"):
        seeds(-1, 3)
