"""The No-U-Turn sampler of nutpie over any density, with four chains of our own.

Hoffman and Gelman (2014, J. Mach. Learn. Res. 15, 1593-1623), as implemented in nutpie. Each chain is
a sampler of its own, so that it writes its draws where we want them: warmup is not kept, and large
models are thinned on the way. A density that exists as a C function is called without Python; any
other through `compiled_pyfunc`, at some 20 microseconds more.

Chains are extended until the effective sample is large enough: another run takes up each chain where
it stopped and warms its step size up again (those draws are dropped).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from finetti.errors import InferenceError
from finetti.inference import joint_kernels as kernels

__all__ = ["CHAINS", "Chains", "Density", "sample"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CHAINS = 4
# seconds between two looks at the chains: also how often Python notices an interrupt
POLL = 0.1


class Density(Protocol):
    """A log density of z (D,) with gradient, and where its draws go.

    `on_tape` says whether the C functions of `joint_kernels` serve it; else it is called, and `decode` turns a
    point z (1, D) into what is kept of it (1, D).
    """

    @property
    def dim(self) -> int: ...

    @property
    def on_tape(self) -> bool: ...

    def __call__(self, z: Floats) -> tuple[float, Floats]: ...

    def decode(self, z: Floats) -> Floats: ...


@dataclass(frozen=True)
class Chains:
    """Draws x (chains, draws, D) as the density decodes them; per chain divergences, gradients and mean step size."""

    x: Floats
    divergences: Ints
    gradients: Ints
    step_size: Floats
    seconds: float


@dataclass
class _Run:
    """One chain under way: nutpie's sampler, and the memory it writes to."""

    sampler: Any
    memory: Ints
    calls: Callable[[], int]
    draws: Callable[[], Floats]


def sample(
    density: Density,
    starts: Floats,
    *,
    warmup: int,
    draws: int,
    thin: int = 1,
    seed: np.random.SeedSequence,
    target_accept: float = 0.8,
    progress: Callable[[int, int], None] | None = None,
) -> Chains:
    """Run one chain from each start (C, D).

    Parameters
    ----------
    density : Density
    warmup, draws, thin : int
        Of each chain; every `thin`-th of the draws is kept.
    seed : SeedSequence
        The same seed gives the same draws.
    target_accept : float
        The higher, the smaller the steps.
    progress : callable (done, total), optional

    Raises
    ------
    InferenceError
        If the density is not finite at a start, or the sampler fails.
    """
    began = time.perf_counter()
    begin = _on_tape if density.on_tape else _in_python
    runs: list[_Run] = []
    try:
        for child, start in zip(seed.spawn(len(starts)), starts, strict=True):
            settings = _settings(warmup, draws, int(child.generate_state(1)[0]), target_accept)
            runs.append(begin(density, np.ascontiguousarray(start), settings, warmup, draws, thin))
        for run in runs:
            while not _finished(run.sampler):
                if progress:
                    progress(sum(r.calls() for r in runs), len(runs) * (warmup + draws))
        stats = [_statistics(run.sampler, warmup, draws) for run in runs]
    except RuntimeError as error:
        raise InferenceError(
            f"NUTS could not run on this posterior ({str(error).splitlines()[0]}). Check the scale of the response and "
            "the priors, or use method='exact'"
        ) from None
    finally:
        for run in runs:
            if not run.sampler.is_empty(ignore_error=True):
                run.sampler.abort()
    divergences, gradients, step = (np.array(column) for column in zip(*stats, strict=True))
    x = np.stack([run.draws() for run in runs])
    return Chains(x, divergences, gradients, step, time.perf_counter() - began)


def _finished(sampler: Any) -> bool:
    """Wait a moment for one chain."""
    try:
        sampler.wait(POLL)
    except TimeoutError:
        return False
    return True


def _settings(warmup: int, draws: int, seed: int, target_accept: float) -> Any:
    from nutpie import _lib

    settings = _lib.PyNutsSettings.Diag(seed)
    settings.num_tune, settings.num_draws, settings.num_chains = warmup, draws, 1
    settings.target_accept = target_accept
    return settings


def _variables() -> Any:
    from nutpie import _lib

    return _lib.PyVariable.new_variables(["call"], ["float64"], [()], {}, {})


def _on_tape(density: Any, start: Floats, settings: Any, warmup: int, draws: int, thin: int) -> _Run:
    """nutpie calls the C functions, each chain on a tape of its own; without the interpreter, in a thread."""
    from nutpie import _lib

    shelf = density.shelf(warmup, thin, draws // thin)
    evaluate, store, at = kernels.compiled(), kernels.compiled_store(), shelf.ctypes.data
    model = _lib.PyMcModel(
        _lib.LogpFunc(evaluate.address, at, (shelf, evaluate)),
        _lib.ExpandFunc(density.dim, 1, store.address, at, (shelf, store)),
        _variables(), density.dim, {}, {}, lambda _: start, None,
    )  # fmt: skip
    sampler = _lib.PySampler.from_pymc(settings, 1, model, _lib.ProgressType.none(), _lib.PyStorage.arrow())
    calls = density.tape.size
    return _Run(sampler, shelf, lambda: int(shelf[calls]), lambda: density.draws_on(shelf))


def _in_python(density: Density, start: Floats, settings: Any, warmup: int, draws: int, thin: int) -> _Run:
    """nutpie calls Python."""
    from nutpie import _lib

    kept, count = np.zeros((draws // thin, density.dim)), np.zeros(1, dtype=np.int64)

    def keep(z: Floats) -> dict[str, Floats]:
        place, rest = divmod(int(count[0]) - warmup, thin)
        if 0 <= place < len(kept) and rest == 0:
            kept[place] = density.decode(z[None])[0]
        count[0] += 1
        return {"call": np.array(float(count[0] - 1))}

    model = _lib.PyModel(
        lambda: density, lambda *_: keep, _variables(), density.dim,
        dim_sizes={}, coords={}, init_point_func=lambda _: start, transform_adapter=None,
    )  # fmt: skip
    sampler = _lib.PySampler.from_pyfunc(settings, 1, model, _lib.ProgressType.none(), _lib.PyStorage.arrow())
    return _Run(sampler, count, lambda: int(count[0]), lambda: kept)


def _statistics(run: Any, warmup: int, draws: int) -> tuple[int, int, float]:
    """Divergences and gradients after warmup, step size; the order of the calls is checked."""
    (trace,), (stats,) = run.take_results().get_arrow_trace()
    calls = trace.column("call").to_numpy()
    if calls.size != warmup + draws or not np.array_equal(calls, np.arange(calls.size)):
        raise RuntimeError("this version of nutpie stores draws in an order that finetti does not know")
    after = slice(warmup, None)
    return (
        int(np.sum(stats.column("diverging").to_numpy()[after])),
        int(np.sum(stats.column("n_steps").to_numpy()[after])),
        float(np.mean(stats.column("step_size").to_numpy()[after])),
    )
