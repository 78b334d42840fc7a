"""The posterior under other hyperpriors: nodes reweighted by the ratio of prior densities, refitted where that fails.

The standard deviations of groups get another family all at once, each with the prior median that it had, so that
families are compared at one scale; or their own family at half and at twice the scale. Where the prior has no scale of
its own to hand on (a heavy-tailed, bounded, improper or data-made one), the default prior's median stands in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import stdtrit

from finetti.data.variants import with_priors
from finetti.errors import FinettiError, PriorError
from finetti.inference.infer import Inference, infer
from finetti.inference.scaled import log_prior_ratio, tails_under
from finetti.inference.weights import k_threshold, normalise, smooth_ratios
from finetti.model.priors import (
    DuMouchel,
    Exponential,
    Gamma,
    HalfCauchy,
    HalfNormal,
    HalfT,
    InverseGamma,
    Lkj,
    Prior,
    Uniform,
    UniformShrinkage,
)
from finetti.model.resolve import resolve
from finetti.posterior.mixtures import mixture_moments, mixture_quantiles
from finetti.posterior.moments import summary_table
from finetti.posterior.power_scaling import Cloud, Evaluated, functions_of, hyper_cloud
from finetti.posterior.summary import quantile_names, summarise, without_moments

if TYPE_CHECKING:
    from finetti.data.bound import Bound
    from finetti.inference.hyperparameters import Hyperparameters
    from finetti.posterior.fit import Fit

__all__ = ["AS_FITTED", "Alternative", "alternative_table", "alternatives", "median_of", "rescaled"]

Floats = npt.NDArray[np.float64]

AS_FITTED = "as fitted"
PROBS = np.array([0.05, 0.5, 0.95])
# Pareto k above which nodes are not reweighted: a heavy tail is what another prior adds, and a refit costs little
LARGEST_K = 0.5
# widths of a normal's 90 % interval in sds
NINETY = 3.2897072539029435
_NORMAL_MEDIAN, _LOG_2 = 0.6744897501960817, float(np.log(2.0))
_T3_MEDIAN = float(stdtrit(3.0, 0.75))

_FAMILIES: tuple[Callable[[float], Prior], ...] = (
    HalfCauchy,
    lambda median: HalfT(3.0, median / _T3_MEDIAN),
    lambda median: HalfNormal(median / _NORMAL_MEDIAN),
    lambda median: Exponential(_LOG_2 / median),
    lambda median: Uniform(),
)


def median_of(prior: Prior) -> float | None:
    """Median of a prior of a standard deviation with one scale; None of any other.

    >>> median_of(HalfCauchy(5.0)), median_of(Uniform())
    (5.0, None)
    """
    if isinstance(prior, HalfCauchy):
        return prior.scale
    if isinstance(prior, HalfT):
        return prior.scale * float(stdtrit(prior.df, 0.75))
    if isinstance(prior, HalfNormal):
        return prior.scale * _NORMAL_MEDIAN
    return _LOG_2 / prior.rate if isinstance(prior, Exponential) else None


def rescaled(prior: Prior, factor: float) -> Prior | None:
    """Return the prior of `factor` times the standard deviation; None where the prior has no scale.

    >>> rescaled(HalfT(3.0, 10.0), 0.5), rescaled(Uniform(), 2.0)
    (half_t(3, 5), None)
    """
    if isinstance(prior, HalfNormal | HalfCauchy | HalfT):
        return replace(prior, scale=factor * prior.scale)
    if isinstance(prior, Exponential | Gamma):
        return replace(prior, rate=prior.rate / factor)
    if isinstance(prior, InverseGamma):  # of the variance
        return replace(prior, scale=factor**2 * prior.scale)
    if isinstance(prior, DuMouchel | UniformShrinkage) and prior.s0 is not None:
        return replace(prior, s0=factor * prior.s0)
    if isinstance(prior, Uniform) and prior.proper and prior.low == 0.0:
        return replace(prior, high=factor * prior.high)
    return None


@dataclass(frozen=True)
class Alternative:
    """Other hyperpriors by label, and what they change: "sd", "sd, scale halved", "sigma, scale doubled", "cor"."""

    changed: str
    priors: Mapping[str, Prior]

    @property
    def text(self) -> str:
        """The priors as a user would write them, each once."""
        each = list(dict.fromkeys(str(p) for p in self.priors.values()))
        return " / ".join([*each[:3], *(["…"] if len(each) > 3 else [])])


def alternatives(bound: Bound, hyper: Hyperparameters) -> list[Alternative]:
    """Return the alternatives to the hyperpriors of a model; those that it has already are left out."""
    own = {c.label: c.prior for c in hyper.coordinates if c is not None and not c.is_coefficient}
    sds = {label: prior for label, prior in own.items() if label != "sigma"}
    default = _defaults(bound)
    out: list[Alternative] = []
    for family in _FAMILIES if sds else ():
        out.append(Alternative("sd", {g: family(_median(p, default[g])) for g, p in sds.items()}))
    sigma = {label: prior for label, prior in own.items() if label == "sigma"}
    for what, some in (("sd", sds), ("sigma", sigma)):
        for word, factor in (("halved", 0.5), ("doubled", 2.0)):
            made = {label: new for label, p in some.items() if (new := rescaled(p, factor)) is not None}
            out.append(Alternative(f"{what}, scale {word}", made))
    blocks = {f"cor_{f.name}": b for f in hyper.factors if f.held is None for b in f.blocks if b.size}
    for eta in (1.0, 4.0) if blocks else ():
        out.append(Alternative("cor", dict.fromkeys(blocks, Lkj(eta))))
        own |= {label: Lkj(block.eta) for label, block in blocks.items()}
    return [a for a in out if any(str(p) != str(own[label]) for label, p in a.priors.items())]


def _median(prior: Prior, default: Prior) -> float:
    found = median_of(prior) or median_of(default)
    assert found is not None  # the default has one
    return found


def _defaults(bound: Bound) -> dict[str, Prior]:
    """The default priors that these data would get."""
    design = bound.design
    factors = [(f.name, f.coefficients, f.blocks) for f in design.factors]
    nobody: Any = SimpleNamespace(priors={})
    return resolve(
        nobody, columns=design.columns, intercept=design.intercept, factors=factors,
        has_sigma=design.se is None or design.se_sigma, scales=bound.scales,
    )[0]  # fmt: skip


# --- the table --------------------------------------------------------------------------------------


def alternative_table(fit: Fit, nodes: Evaluated, refit: bool = True) -> tuple[pd.DataFrame, list[str]]:
    """Posterior of every parameter under every alternative, and notes on what could not be shown.

    See `finetti.posterior.sensitivity.Sensitivity` for the columns.
    """
    inference = fit.inference
    summary = summary_table(fit, PROBS).drop(columns=["ess", "mcse"])
    summary = summary[(summary["q95"] > summary["q5"]).to_numpy()]  # what is held has no place here, nor what is NaN
    labels, base = list(summary.index), summary.to_numpy()
    sd = np.where(np.isfinite(base[:, 1]), base[:, 1], (base[:, 4] - base[:, 2]) / NINETY)
    found, notes = _reachable(inference)
    reader = _Reader.of(inference, nodes, labels)
    as_fitted = reader.read(np.zeros(inference.hyper.n_nodes), np.zeros(reader.cloud.weights.size))
    enough = min(LARGEST_K, k_threshold(int(np.sum(inference.hyper.log_weights > np.log(1e-300)))))
    columns: dict[str, list[Any]] = {"alternative": [], "changed": [], "pareto_k": [], "refitted": []}
    blocks, shifts = [], []

    def add(a: Alternative, rows: Floats, move: Floats, k: float, refitted: bool) -> None:
        for name, value in zip(columns, (a.text or AS_FITTED, a.changed, k, refitted), strict=True):
            columns[name] += [value] * len(labels)
        blocks.append(rows)
        shifts.append(move / sd)

    add(Alternative("", {}), base, np.zeros(len(labels)), np.nan, False)
    for a, gain, k, tails in found:
        if k < enough:
            rows = reader.read(gain, log_prior_ratio(inference.conditional.inner.hyper, a.priors, reader.cloud.theta))
            move = rows[:, 3] - as_fitted[:, 3]
            add(a, _existing(rows, labels, inference, *tails), move, k, False)
            continue
        if not refit:
            notes.append(
                f"{a.text} is left out: it is beyond the nodes of this fit (Pareto k {k:.2g}), and refit=False"
            )
            continue
        try:
            again = infer(with_priors(inference.bound, a.priors), seed=fit.seed)
        except FinettiError as error:
            notes.append(f"{a.text} is left out, for its refit failed: {error}")
            continue
        rows = summarise(again, PROBS).drop(columns=["ess", "mcse"]).loc[labels].to_numpy()
        add(a, rows, rows[:, 3] - base[:, 3], k, True)
    values = np.concatenate(blocks)
    first = {name: columns[name] for name in ("alternative", "changed")} | {"parameter": labels * len(blocks)}
    moments = {name: values[:, j] for j, name in enumerate(["mean", "sd", *quantile_names(PROBS)])}
    last = {"shift": np.concatenate(shifts)} | {name: columns[name] for name in ("pareto_k", "refitted")}
    return pd.DataFrame(first | moments | last), notes


def _reachable(inference: Inference) -> tuple[list[tuple[Alternative, Floats, float, Any]], list[str]]:
    """The alternatives with a proper posterior, each with the nodes' gains (S,) after smoothing, k and tails."""
    hyper, notes = inference.conditional.inner.hyper, []
    some: list[tuple[Alternative, Any, Floats | None]] = []
    for a in alternatives(inference.bound, hyper) if hyper.d else []:
        try:
            tails = tails_under(inference, a.priors)
        except PriorError as error:
            notes.append(f"{a.text} is left out: {error}")
            continue
        some.append((a, tails, log_prior_ratio(hyper, a.priors, inference.hyper.theta)))
    if not some:
        return [], notes
    nowhere = np.full(inference.hyper.n_nodes, np.nan)
    gains = np.stack([nowhere if gain is None else gain for _, _, gain in some], axis=1)
    log_w = inference.hyper.log_weights
    smoothed, k = smooth_ratios(log_w, gains)
    k = np.where(np.isnan(k), np.inf, k)
    return [(a, smoothed[:, j] - log_w, float(k[j]), tails) for j, (a, tails, _) in enumerate(some)], notes


def _existing(rows: Floats, labels: list[str], inference: Inference, tails: dict[str, float], beta: Floats) -> Floats:
    """The rows without moments that do not exist."""
    index = dict(zip((f"beta[{c}]" for c in inference.bound.design.columns), beta, strict=True)) | tails
    for row, label in zip(rows, labels, strict=True):
        row[:2] = without_moments([*row[:2], 0.0, 0.0], float(index.get(label, np.inf)))[:2]
    return rows


@dataclass(frozen=True)
class _Reader:
    """Reads mean, sd and quantiles of parameters off reweighted nodes."""

    nodes: Evaluated
    cloud: Cloud
    dense: bool  # whether the cloud has points beside the nodes
    columns: tuple[int, ...]  # of coefficients that are mixtures, and where they stand among the rows
    places: tuple[int, ...]
    values: Mapping[int, Floats]  # functions of theta at the points of the cloud, sorted, by row
    orders: Mapping[int, npt.NDArray[np.int64]]
    n_rows: int
    log_w: Floats

    @classmethod
    def of(cls, inference: Inference, nodes: Evaluated, labels: list[str]) -> _Reader:
        dense = hyper_cloud(inference)
        cloud = dense or Cloud(inference.hyper.theta, inference.hyper.weights)
        known, mixed = functions_of(inference, nodes, cloud.theta), {}
        for k, column in enumerate(inference.bound.design.columns):
            if (label := f"beta[{column}]") in labels and label not in known:
                mixed[k] = labels.index(label)
        rows = {labels.index(label): value for label, value in known.items() if label in labels}
        orders = {row: np.argsort(value) for row, value in rows.items()}
        ordered = {row: value[orders[row]] for row, value in rows.items()}
        return cls(
            nodes, cloud, dense is not None, tuple(mixed), tuple(mixed.values()), ordered, orders, len(labels),
            inference.hyper.log_weights,
        )  # fmt: skip

    def read(self, node_gain: Floats, cloud_gain: Floats | None) -> Floats:
        """Rows (L, 5) after gains in log weight of all nodes (S,) and of the points of the cloud (M,)."""
        out = np.full((self.n_rows, 5), np.nan)
        w = normalise(np.log(self.nodes.w) + node_gain[self.nodes.at])
        columns, places = list(self.columns), list(self.places)
        mean, var = self.nodes.base.beta_mean[:, columns], self.nodes.base.beta_var[:, columns]
        out[places, :2] = np.stack(mixture_moments(w, mean, var), axis=1)
        out[places, 2:] = mixture_quantiles(w, mean, var, PROBS)
        if self.dense and cloud_gain is not None:
            # beyond the nodes a ratio of priors may outgrow what the surrogate knows of the posterior
            most = np.max(cloud_gain[-self.log_w.size :][self.log_w > np.log(1e-12)])
            weights = self.cloud.reweighted(np.minimum(cloud_gain, most))
        else:
            weights = normalise(self.log_w + node_gain)
        for row, x in self.values.items():
            w = weights[self.orders[row]]
            m = float(w @ x)
            out[row] = [m, float(np.sqrt(np.maximum(w @ (x - m) ** 2, 0.0))), *_quantiles(x, w)]
        return out


def _quantiles(x: Floats, w: Floats) -> Floats:
    """Quantiles of sorted points some of whose weights may be negative."""
    F = np.cumsum(w) - 0.5 * w
    rising = 0.5 * (np.maximum.accumulate(F) + np.minimum.accumulate(F[::-1])[::-1])
    return np.interp(PROBS, rising, x)
