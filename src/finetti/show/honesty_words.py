"""What each result on honest uncertainty comes to, in one sentence made of its numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from finetti.posterior.alternatives import AS_FITTED
from finetti.posterior.pooling_scores import IN_WORDS
from finetti.posterior.sensitivity import BOTH, CONFLICT, DATA, HELD, PRIOR
from finetti.show.numbers import number, percent, plural, shared_decimals
from finetti.show.reading import pooling_of
from finetti.show.style import shortened, signed

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "exchangeability", "lengths", "logo", "loo", "pooling", "sensitivity", "sentence", "sentences", "uncertainty",
    "weights",
]  # fmt: skip

NAMED = 4  # groups or parameters named in a sentence
# a ratio of interval lengths within this of 1 is called nearly the same
NEAR = 0.02
# differences in elpd too small to write, and too small for their standard error to be relied on (Sivula, Magnusson,
# Matamoros and Vehtari 2020, Uncertainty in Bayesian leave-one-out cross-validation based model comparison)
NOTHING, SMALL = 0.05, 4.0


def sentence(text: str) -> str:
    """Return a note as a sentence: with a capital where it begins with a word, and a full stop.

    >>> sentence("not pooled"), sentence("eb_sd is NaN."), sentence("8 of 9 rows")
    ('Not pooled.', 'eb_sd is NaN.', '8 of 9 rows.')
    """
    text = " ".join(text.split())
    first = text.split(" ")[0]
    head = text[:1].upper() if first.isalpha() and first.islower() else text[:1]
    return f"{head}{text[1:]}{'' if text.endswith(('.', '!', '?')) else '.'}"


def sentences(notes: Iterable[str]) -> tuple[str, ...]:
    """Return notes as sentences, none twice."""
    return tuple(dict.fromkeys(sentence(note) for note in notes))


def _listed(names: Sequence[str]) -> str:
    names = [shortened(str(name), 40) for name in names]
    if len(names) > NAMED:
        return f"{', '.join(names[:NAMED])} and {len(names) - NAMED} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _range(values: np.ndarray) -> str:
    """Say a range: 15 to 91 % (median 43 %)."""
    low, middle, high = (percent(float(v)) for v in (values.min(), np.median(values), values.max()))
    return middle if low == high else f"{low.removesuffix(' %')} to {high} (median {middle})"


def _what(group: str, c: str) -> str:
    return "estimate" if c == "Intercept" else f"effect of {shortened(c)}"


def weights(fit: Any, group: str, table: pd.DataFrame, c: str) -> str:
    """How much own data decide, and which of the two counts for more over the whole term."""
    name = shortened(group)
    if pooling_of(fit, group) == "none":
        return f"The levels of {name} were not pooled: their own data decide all of every estimate."
    if pooling_of(fit, group) == "complete":
        return f"The levels of {name} were pooled completely: their own data decide nothing of a difference."
    own = table.loc[table["coefficient"] == c, "weight"].to_numpy(float)
    own = own[np.isfinite(own)]
    factor = float(table.pooling_factor[c])
    said = f"Own data decide {_range(own)} of the {_what(group, c)} of each {name}" if own.size else ""
    if np.isfinite(factor):
        more = (
            "the population tells more about the groups than"
            if factor > 0.5
            else "own data tell more than the population"
        )
        more += " their own data" if factor > 0.5 else ""
        said += f"{', and ' if said else ''}with a pooling factor of {number(factor, 2)} (0 none, 1 complete) {more}"
    return sentence(said or f"nothing is known of the weights of {name}")


def pooling(scores: pd.DataFrame, table: Any, group: str, c: str) -> str:
    """Which analysis predicts rows best, and which others are told apart from it."""
    loo = scores["loo"]
    finite = loo[np.isfinite(loo)]
    if finite.size < 2:
        return lengths(table, group, c)
    best = str(finite.idxmax())
    alike, worse, unknown = [], [], []
    for key in scores.index:
        if key == best:
            continue
        behind, se = float(scores.loc[key, "loo_diff"]), float(scores.loc[key, "loo_dse"])
        if key not in finite.index:
            ahead = float(scores.loc[best, "loo_shared"] - scores.loc[key, "loo_shared"])
            about = f", and on the others it is {'worse' if ahead > 0 else 'better'} by {abs(ahead):.1f}"
            said = f"cannot predict some rows{about}" if np.isfinite(ahead) else "cannot be scored"
            unknown.append(f"{IN_WORDS[key]} {said}")
        elif behind <= max(se, NOTHING):
            told = "" if behind <= NOTHING else f" ({behind:.1f} behind, se {se:.1f})"
            alike.append(f"{IN_WORDS[key]} is not told apart from it{told}")
        else:
            how = "is clearly worse, by" if behind > max(2.0 * se, SMALL) else "is behind by"
            worse.append(f"{IN_WORDS[key]} {how} {behind:.1f} (se {se:.1f})")
    return f"Rows left out are predicted best by {IN_WORDS[best]}: {'; '.join([*alike, *worse, *unknown])}."


def lengths(table: Any, group: str, c: str) -> str:
    """How long the intervals of the analyses are, where no score tells which is right."""
    mine = table[table["coefficient"] == c]
    found = {key: mine[f"{key}_length"].to_numpy(float) for key in ("no_pooling", "empirical_bayes", "full_bayes")}
    found = {key: v[np.isfinite(v)] for key, v in found.items() if np.isfinite(v).any()}
    if not found:
        return f"None of the analyses has an interval for {shortened(group)}."
    places = shared_decimals(np.concatenate(list(found.values())), digits=2)
    told = ", ".join(f"{number(float(np.median(v)), places)} under {IN_WORDS[key]}" for key, v in found.items())
    return f"The 90 % interval of a {shortened(group)} has a median length of {told}."


def uncertainty(table: Any, group: str, c: str) -> tuple[str, tuple[str, ...]]:
    """What not knowing the hyperparameters adds, and what empirical Bayes makes of it; the notes that are left."""
    term = table["term"].to_numpy() == (group or "beta")
    mine = table[term & (table["coefficient"].to_numpy() == c)] if c else table[term]
    share, ratio = (mine[name].to_numpy(float) for name in ("share", "eb_interval_ratio"))
    share, ratio = share[np.isfinite(share)], ratio[np.isfinite(ratio)]
    notes = tuple(table.notes)
    if not share.size or not share.any():
        return (sentence(notes[0]), notes[1:]) if notes else ("No hyperparameter adds to the uncertainty.", ())
    # the sentences on shares and ratios are about all coefficients together; the one here is about those drawn
    rest = tuple(
        n for n in notes if not n.startswith(("not knowing the hyperparameters makes", "empirical Bayes' 90 %"))
    )
    what = "population coefficients" if not group else f"{shortened(group)} estimates"
    if c not in ("", "Intercept"):
        what += f" of {shortened(c)}"
    said = f"Not knowing the hyperparameters makes {_range(share)} of the posterior variance of {what}"
    if ratio.size:
        middle = float(np.median(ratio))
        if abs(middle - 1.0) < NEAR:
            said += ", and empirical Bayes' intervals are nearly as long as full Bayes'"
        else:
            off, wrong = percent(abs(1.0 - middle)), "too sure" if middle < 1.0 else "less sure than the data allow"
            longer = "shorter" if middle < 1.0 else "longer"
            said += f", and empirical Bayes is {wrong}: its intervals are {off} {longer} than full Bayes' (median)"
    return f"{said}.", rest


def exchangeability(found: Any) -> tuple[str, tuple[str, ...]]:
    """Whether anything speaks against one parent for all groups; what is left to say."""
    J, group = len(found.levels), shortened(found.group)
    said = []
    if found.flagged:
        verb = "is" if len(found.flagged) == 1 else "are"
        said.append(
            f"{_listed(found.flagged)} {verb} surprising as draws from the parent of the other levels of {group}"
        )
    bent = list(found.calibration.loc[found.calibration["p_value"] <= found.level, "coefficient"])
    if bent:
        said.append(f"together the {J} levels do not look like draws from one normal parent in {_listed(bent)}")
    if found.informative:
        verb = "tells" if len(found.informative) == 1 else "tell"
        said.append(f"{_listed(found.informative)} {verb} the effects of {group}, so that its labels carry information")
    if said:
        whole = ", and ".join(said)
        return f"{whole[0].upper() if not found.flagged else whole[0]}{whole[1:]}.", tuple(found.advice)
    first, mark, rest = found.advice[0].partition(". A single group")
    return sentence(first), (*([f"A single group{rest}"] if mark else []), *found.advice[1:])


def loo(found: Any) -> str:
    """The score of rows, and whether it is trusted."""
    said = f"Rows left out one by one are predicted with a log density of {_elpd(found.elpd_loo, found.se)}"
    if np.isfinite(found.elpd_loo):
        said += (
            f", {signed(found.elpd_loo / found.n_data_points, 2)} a row, with {found.p_loo:.1f} effective parameters"
        )
    return f"{said}; {_trust(found, 'row')}."


def logo(found: Any, fit: Any) -> str:
    """The score of groups, whether it is trusted, and the group that is predicted worst."""
    group = shortened(found.group)
    if np.all(np.isneginf(found.logo_i)):
        return (
            f"The levels of {group} have no parent distribution: nothing is known of one that is left out (score −∞)."
        )
    said = f"Levels of {group} left out whole are predicted with a log density of {_elpd(found.elpd_logo, found.se)}"
    if np.isfinite(found.elpd_logo):
        said += f", {signed(found.elpd_logo / fit.n_rows, 2)} a row"
    return f"{said}; {_trust(found, 'group')}."


def _elpd(value: float, se: float) -> str:
    if not np.isfinite(value):
        return "no known size, since the rest of the data cannot predict all of them"
    return f"{signed(value, 1)}{f' (se {se:.1f})' if np.isfinite(se) else ''}"


def _trust(found: Any, what: str) -> str:
    k = found.pareto_k[np.isfinite(found.pareto_k)]
    if not np.isfinite(found.good_k) or not k.size:
        flattered = any("flatters" in note for note in found.notes)
        return (
            "it is flattered, since the hyperparameters were estimated with them in the data"
            if flattered
            else "no weights over hyperparameters were needed for it"
        )
    limit = f"the largest Pareto k is {signed(float(k.max()), 2)}, trusted below {found.good_k:.2f}"
    if found.failed:
        return f"{plural(len(found.failed), what)} of them cannot be trusted ({limit})"
    if n := len(found.refitted):
        return f"all of it can be trusted ({limit}; {plural(n, what)} {'was' if n == 1 else 'were'} refitted)"
    return f"all of it can be trusted ({limit})"


def sensitivity(found: Any) -> str:
    """Which parameters the prior moves, and how far other hyperpriors would move them."""
    of = {v: list(found.table.index[found.table["verdict"] == v]) for v in (DATA, CONFLICT, BOTH, PRIOR)}
    said = []
    if of[CONFLICT]:
        said.append(f"prior and data disagree about {_listed(of[CONFLICT])}")
    if of[PRIOR]:
        said.append(f"the prior decides {_listed(of[PRIOR])}")
    if of[BOTH]:
        verb = "depends" if len(of[BOTH]) == 1 else "depend"
        said.append(f"{_listed(of[BOTH])} {verb} on the prior as well as on the data")
    held = int(found.table["verdict"].eq(HELD).sum())
    if not said and not held:
        said.append("the data decide every parameter" if of[DATA] else "no parameter has a prior that could move it")
    elif of[DATA]:
        named = len(of[DATA]) <= NAMED or not said
        said.append(f"the data decide {_listed(of[DATA]) if named else 'the rest'}")
    if held:
        said.append(f"{plural(held, 'parameter')} {'is' if held == 1 else 'are'} held at one value")
    others = found.alternatives[found.alternatives["alternative"] != AS_FITTED]
    text = "; ".join(said)
    if len(others):
        most = float(np.nan_to_num(others["shift"].abs().to_numpy(float)).max())
        text += f"; other hyperpriors move no median by more than {number(most, 2)} posterior sds"
    first = text.split(" ")[0]
    return f"{text[0].upper() if first.isalpha() else text[0]}{text[1:]}."
