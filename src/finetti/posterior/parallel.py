"""Many independent tasks on all cores, with the same answer on any number of them.

The exact inner step already runs its nodes in threads, but a small model spends most of its time between them, in
Python: there, one process per core with one thread each is nearly as many times faster as there are cores. Processes
come from joblib's loky, which needs no `if __name__ == "__main__"` and works from a notebook.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral
from typing import Any, TypeVar

import numpy as np

from finetti.errors import FinettiError
from finetti.linalg.blas import single_threaded
from finetti.linalg.system import n_threads, one_thread

__all__ = ["run", "seeds"]

Task = TypeVar("Task")
Result = TypeVar("Result")
Progress = Callable[[str, int, int | None], None]

# seconds of tasks done here before it is known what the others will take
TRIAL = 0.5
# nominal seconds that starting processes takes, kernels loaded: they must save more
START = 3.0
# pieces per worker: an unlucky one does not hold up the others, and progress is seen
PIECES = 12


def seeds(seed: int, n: int) -> list[np.random.SeedSequence]:
    """Return a seed for every task, which depends on nothing but its number.

    >>> [int(s.generate_state(1)[0]) for s in seeds(0, 2)] == [int(s.generate_state(1)[0]) for s in seeds(0, 3)[:2]]
    True
    """
    if isinstance(seed, bool) or not isinstance(seed, Integral) or seed < 0:
        raise FinettiError(f"seed={seed!r} must be a whole number of at least 0")
    return np.random.SeedSequence(int(seed)).spawn(n)


def run(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    progress: Progress | None = None,
    n_jobs: int | None = None,
    stage: str = "simulating",
) -> list[Result]:
    """Return `[function(task) for task in tasks]`, computed in processes where that is faster.

    Parameters
    ----------
    function : callable
        Of one task; a closure or `functools.partial` may carry what all tasks share, which is sent to a process a
        few times only. It must draw its random numbers from seeds in the task (see `seeds`).
    tasks : sequence
    progress : callable (stage, done, total), optional
    n_jobs : int, optional
        Number of processes, or of all cores where -1; 1 stays in this process. By default all cores, unless the tasks
        are so few or short that starting processes (about two seconds) would cost more.
    stage : str
        What `progress` is told.

    Raises
    ------
    FinettiError
        For a number of jobs that makes no sense. An exception of a task is raised here as it is.

    Examples
    --------
    >>> run(abs, [-1, 2, -3])
    [1, 2, 3]
    """
    tasks = list(tasks)
    workers = _workers(n_jobs)
    report = progress or (lambda stage, done, total: None)
    results: list[Result] = []
    report(stage, 0, len(tasks))
    if workers > 1 and len(tasks) > 1:
        if n_jobs is None:  # try some first
            _here(function, tasks, results, report, stage, workers)
        if len(results) < len(tasks):
            _in_processes(function, tasks, results, report, stage, workers)
    _here(function, tasks, results, report, stage, 0)  # what is left: all of it, or nothing
    return results


def _workers(n_jobs: int | None) -> int:
    cores = n_threads()
    if n_jobs is None or (isinstance(n_jobs, Integral) and n_jobs == -1):
        return cores
    if isinstance(n_jobs, bool) or not isinstance(n_jobs, Integral) or n_jobs < 1:
        raise FinettiError(f"n_jobs={n_jobs!r} must be a number of processes of at least 1, -1 or None for all cores")
    return int(n_jobs)


def _here(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    results: list[Result],
    report: Progress,
    stage: str,
    workers: int,
) -> None:
    """Go on in this process; with `workers`, stop as soon as processes would pay for the rest."""
    began = time.perf_counter()
    first = began
    with single_threaded():
        while len(results) < len(tasks):
            results.append(function(tasks[len(results)]))
            report(stage, len(results), len(tasks))
            now = time.perf_counter()
            if len(results) == 1:
                first = now  # the first may have waited for a kernel to be loaded
            elif workers and now - began > TRIAL:
                left = (now - first) / (len(results) - 1) * (len(tasks) - len(results))
                if left * (1.0 - 1.0 / workers) > START:
                    return


def _in_processes(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    results: list[Result],
    report: Progress,
    stage: str,
    workers: int,
) -> None:
    """Add the results of the other tasks; where processes cannot be started or die, those that came back."""
    first = len(results)
    pieces = np.array_split(np.arange(first, len(tasks)), min(len(tasks) - first, workers * PIECES))
    try:
        from joblib import Parallel, delayed, parallel_config

        with _quiet(), parallel_config(backend="loky", inner_max_num_threads=1):
            made = Parallel(n_jobs=workers, return_as="generator", batch_size=1)(
                delayed(_piece)(function, [tasks[i] for i in piece]) for piece in pieces
            )
            for part, error in _until_broken(made):
                results += part
                if error is not None:
                    raise _TaskError(error)
                report(stage, len(results), len(tasks))
    except _TaskError as failed:
        raise failed.error from None
    except ImportError:  # pragma: no cover
        return


class _TaskError(Exception):
    """An exception of a task on its way out of a process."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def _until_broken(made: Any) -> Iterator[tuple[list[Any], Exception | None]]:
    """What processes return, until it is clear that they cannot be had; the tasks' own errors are among it."""
    iterator = iter(made)
    while True:
        try:
            item = next(iterator)
        except StopIteration:
            return
        except Exception:  # the machinery's: no more processes, no memory, something that cannot be sent
            return
        yield item


def _piece(function: Callable[[Task], Result], tasks: list[Task]) -> tuple[list[Result], Exception | None]:
    """Return the results of some tasks, in a process of its own, and the error that ended them."""
    done: list[Result] = []
    with one_thread(), single_threaded():
        for task in tasks:
            try:
                done.append(function(task))
            except Exception as error:
                return done, error
    return done, None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without joblib's remarks about its own workers."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*worker.*", category=UserWarning)
        yield
