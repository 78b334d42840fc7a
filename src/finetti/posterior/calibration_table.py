"""From the positions of the truth in many posteriors to a table, a verdict per parameter, and sentences.

Uniform positions u have normal scores z = Phi^-1(u) with mean 0 and sd 1. A mean above 0: truths lie above what the
posteriors say, which are too low. An sd above 1: truths lie in the tails too often, posteriors are too narrow. What is
"not calibrated" is decided by the simultaneous test of uniformity alone, Bonferroni's way over parameters; the scores
say in which way.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import ndtri

from finetti.posterior.positions import unbounded
from finetti.posterior.uniformity import uniform_p_value

__all__ = ["ALARM", "MOST_FAILED", "advise", "calibration_table"]

Floats = npt.NDArray[np.float64]

# probability that a correct program is reported as miscalibrated, over all parameters together
ALARM = 0.01
# share of the simulations that may fail before the check is called incomplete
MOST_FAILED = 0.05
# posterior sds too small by a factor 1 + 5 / sqrt(n), or centres off by 5 / sqrt(n) sds, leave the band nine times in
# ten (simulated, n = 60 to 1,000, six parameters)
NOTICED = 5.0
# contraction below which a parameter's data say so little that it would pass in any case
UNINFORMED = 0.1


def calibration_table(pit: pd.DataFrame, sd: pd.DataFrame, prior: Mapping[str, Floats]) -> pd.DataFrame:
    """Return one row per parameter; see `Calibration.table`.

    Parameters
    ----------
    pit, sd : simulations x parameters, position of the truth and posterior sd on the scale of `unbounded`
    prior : draws of each parameter from its prior
    """
    rows = {}
    for label in map(str, pit):
        u = pit[label].dropna().to_numpy()
        n = u.size
        p = uniform_p_value(u)
        z = ndtri(np.clip(u, 1e-12, 1.0 - 1e-12))
        inside = {share: float(np.mean(np.abs(u - 0.5) <= 0.5 * share)) for share in (0.5, 0.9)}
        adjusted = min(1.0, p * pit.shape[1])
        rows[label] = {
            "n": n,
            "p_value": p,
            "p_adjusted": adjusted,
            "mean_z": float(z.mean()),
            "sd_z": float(z.std(ddof=1)),
            "cover_50": inside[0.5],
            "cover_50_se": float(np.sqrt(0.25 / n)),
            "cover_90": inside[0.9],
            "cover_90_se": float(np.sqrt(0.09 / n)),
            "contraction": _contraction(label, sd[label].dropna().to_numpy(), prior[label]),
            "verdict": "calibrated" if adjusted >= ALARM else _wrong(z),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("parameter")


def _wrong(z: Floats) -> str:
    """What is wrong with posteriors in which the truth has these normal scores."""
    shift = float(z.mean()) * np.sqrt(z.size)
    width = (float(z.std(ddof=1)) - 1.0) * np.sqrt(2.0 * z.size)
    if max(abs(shift), abs(width)) < 2.5:
        return "wrong in shape"
    if abs(width) >= abs(shift):
        return "too narrow" if width > 0.0 else "too wide"
    return "too low" if shift > 0.0 else "too high"


def _contraction(label: str, sd: Floats, prior: Floats) -> float:
    """1 - posterior variance / prior variance, from posterior sds and prior draws, on the scale of `unbounded`.

    There every prior of a standard deviation or correlation has moments, and the mean posterior variance is the prior
    variance minus that of the posterior means. Of coefficients, whose priors may have none, typical widths serve.
    """
    x = unbounded(label, prior)
    if label.startswith(("beta[", "group ")):
        low, high = np.quantile(x, [0.1587, 0.8413])
        before, after = 0.5 * float(high - low), float(np.median(sd))
    else:
        before, after = float(np.std(x)), float(np.sqrt(np.mean(sd**2)))
    return 1.0 - (after / before) ** 2 if before > 0.0 else np.nan


def advise(
    table: pd.DataFrame, pit: pd.DataFrame, failed: pd.Series, unreliable: tuple[int, ...], n: int
) -> tuple[str, ...]:
    """Sentences: the verdict, what it could have seen, what is left out, what to do."""
    out = []
    fitted = n - len(failed)
    wrong = table.index[table["p_adjusted"] < ALARM]
    if len(wrong):
        out.append(
            "NOT CALIBRATED: "
            + "; ".join(f"posteriors of {label} are {table.verdict[label]}" for label in wrong)
            + f". A correct program is reported so once in {1 / ALARM:.0f} times; repeat with another seed and more "
            "simulations, and report it as a bug if it stays"
        )
        if unreliable:
            rest = pit.drop(index=list(unreliable))[list(wrong)]
            still = [c for c in rest if uniform_p_value(rest[c].dropna()) * len(table) < ALARM]
            if not still:
                out.append(
                    "Without the fits that said themselves that they had failed, everything is calibrated: it is their "
                    "warnings that matter, and method='nuts' or more informative priors that help"
                )
    else:
        size = NOTICED / np.sqrt(fitted)
        out.append(
            f"Calibrated: all {len(table)} parameters are where they should be. {fitted} simulations would have "
            f"noticed, nine times in ten, a posterior sd {100 * size / (1 + size):.0f} % too small, or a centre off by "
            f"{size:.2f} posterior sds."
        )
    idle = [label for label in table.index if table.contraction[label] < UNINFORMED]
    if idle:
        out.append(
            f"These data say next to nothing about {', '.join(idle)}: the posterior is the prior, and would pass "
            "whatever the computation does."
        )
    if len(failed):
        reasons = failed.str.slice(0, 120).value_counts()
        out.append(
            f"{len(failed)} of {n} simulated data sets could not be fitted and are left out; most often: "
            f"{reasons.index[0]!r}. That depends on the data and not on the truth behind them, so the others are not "
            "biased by it; but the check says nothing of such data."
        )
    if unreliable:
        out.append(
            f"{len(unreliable)} of {n} fits did not pass their own checks, as they would have told you; they are "
            "counted in the table."
        )
    if (len(failed) + len(unreliable)) / n > MOST_FAILED:
        out.append(
            f"More than {100 * MOST_FAILED:.0f} % of the simulations failed, so the check is incomplete: the priors "
            "reach values at which the model cannot be fitted. Narrower priors (half_normal instead of half_cauchy, a "
            "scale nearer to what is plausible) describe data that you could have seen."
        )
    return tuple(out)
