"""One self-contained HTML page about one fit or several: what was assumed, what was learned, whether to trust it.

Nothing is loaded from elsewhere, no script runs, and every text that comes from the user is escaped.
"""

from __future__ import annotations

import base64
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from html import escape
from importlib import metadata, resources
from string import Template
from typing import Any

from finetti.show.arguments import as_python
from finetti.show.numbers import duration, number, plural
from finetti.show.pictures import Picture, pictures
from finetti.show.reading import Reading, pooling_of, sentences
from finetti.show.tables import Table, groups_table, priors_table, summary_table
from finetti.show.text import FAILED, POOLED, board

__all__ = ["Entry", "html"]

MOST_LEVELS = 400  # rows beyond this make a page that a phone cannot scroll; the CSV file has all
_PACKAGES = ("finetti", "numpy", "scipy", "numba", "pandas", "formulaic")


@dataclass(frozen=True)
class Entry:
    """One fit in the report.

    Attributes
    ----------
    title : str
        Heading of its section.
    fit : Fit
    story, source : str
        One sentence on the question, and where the data come from.
    probs : sequence of float
        Quantiles of the tables.
    seconds : float, optional
        Time that the fit took.
    call : str, optional
        The call that makes the fit again. Default: written from the fit.
    figures : tuple of Picture, optional
        Default: drawn now.
    """

    title: str
    fit: Any
    story: str = ""
    source: str = ""
    probs: Sequence[float] = (0.05, 0.5, 0.95)
    seconds: float | None = None
    call: str | None = None
    figures: tuple[Picture, ...] | None = None


def html(entries: Sequence[Entry], *, title: str, intro: str = "", command: str = "") -> str:
    """Return the whole page as text.

    Parameters
    ----------
    entries : sequence of Entry
        The fits, in order.
    title, intro : str
        Heading of the page and a sentence below it.
    command : str
        The shell command that wrote the page, if one did.

    Returns
    -------
    str
        A complete HTML document (UTF-8).
    """
    template = resources.files("finetti.show").joinpath("template.html").read_text(encoding="utf-8")
    head = _p(intro) if intro else ""
    if len(entries) > 1:
        items = "".join(f'<li><a href="#fit-{i}">{escape(e.title)}</a></li>' for i, e in enumerate(entries, 1))
        head += f'\n<ul class="facts">{items}</ul>'
    written = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    body = "\n".join(_section(i, entry) for i, entry in enumerate(entries, 1))
    body += _reproduce(entries, command)
    foot = _p(f"Written by finetti {_version('finetti')} on {written}. This file needs no network and runs no script.")
    return Template(template).substitute(title=escape(title), intro=head, body=body, footer=foot)


def _p(text: str, kind: str = "") -> str:
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def _section(i: int, entry: Entry) -> str:
    entry = replace(entry, fit=Reading(entry.fit))
    fit = entry.fit
    parts = [f'<section id="fit-{i}">', f"<h2>{escape(entry.title)}</h2>"]
    if entry.story:
        parts.append(_p(entry.story))
    if not fit.diagnostics.ok:
        words = "".join(f"<li>{escape(w)}</li>" for w in fit.diagnostics.warnings)
        parts.append(f'<div class="banner" role="alert"><strong>{escape(FAILED)}</strong><ul>{words}</ul></div>')
    parts.append(_facts(entry))
    parts += ["<h3>Model</h3>", _board(board(fit))]
    parts += ["<h3>Summary</h3>", _table(summary_table(fit, entry.probs))]
    parts.append(
        _p("Posterior mean, standard deviation and quantiles; ess: effective sample size; "
           "mcse: Monte Carlo standard error of the mean. – marks a moment that does not exist or is unknown.", "aside")
    )  # fmt: skip
    parts.append(_groups(entry))
    parts += ["<h3>Data and priors</h3>", _data(entry), _table(priors_table(fit))]
    parts += ["<h3>Diagnostics</h3>", _diagnostics(fit), "</section>"]
    return "\n".join(parts)


def _board(text: str) -> str:
    """Return the model with every line in a block of its own, which wraps under itself where the page is narrow."""
    lines = []
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        lines.append(f'<span style="--indent:{indent}ch">{escape(line.lstrip())}\n</span>')
    return f'<pre class="board">{"".join(lines)}</pre>'


def _facts(entry: Entry) -> str:
    fit = entry.fit
    facts = [f"<b>{plural(fit.n_rows, 'row')}</b>"]
    for group in fit.group_names:
        facts.append(f"{escape(str(group))}: <b>{plural(fit.groups(group)['level'].nunique(), 'level')}</b>")
    if entry.seconds is not None:
        facts.append(f"fitted in <b>{duration(entry.seconds)}</b>")
    if fit.diagnostics.ok:
        facts.append('<b class="ok">✓ passed its own check</b>')
    return '<ul class="facts">' + "".join(f"<li>{fact}</li>" for fact in facts) + "</ul>"


def _groups(entry: Entry) -> str:
    fit = entry.fit
    drawn = entry.figures if entry.figures is not None else pictures(fit)
    parts = []
    for group in fit.group_names:
        parts.append(f"<h3>{escape(str(group))}: from raw to {POOLED[pooling_of(fit, group)]}</h3>")
        for picture in drawn:
            if picture.group == group:
                data = base64.b64encode(picture.png).decode("ascii")
                parts.append(f'<figure><img src="data:image/png;base64,{data}" alt="{escape(picture.title)}"></figure>')
        table = groups_table(fit, group, MOST_LEVELS, entry.probs)
        parts.append(_table(table))
        words = (
            "raw: the group's own least-squares estimate. weight: share of its own data in the posterior mean. "
            f"{next(c.title for c in table.columns if c.name == 'mean')}: posterior mean."
        )
        if table.omitted:
            words += f" {table.omitted:,} levels in the middle are left out here; the CSV file has them all."
        parts.append(_p(words, "aside"))
    return "\n".join(parts)


def _table(table: Table) -> str:
    def kind(column: Any) -> str:
        words = [word for word, is_so in (("text", not column.right), ("mean", column.name == "mean"),
                                          ("spare", column.spare > 0)) if is_so]  # fmt: skip
        return f' class="{" ".join(words)}"' if words else ""

    head = "".join(f"<th{kind(c)}>{escape(c.title)}</th>" for c in table.columns)
    lines = []
    for i, row in enumerate(table.rows):
        if table.gap is not None and i == table.gap:
            lines.append(f'<tr><td class="gap" colspan="{len(row)}">… {table.omitted:,} more …</td></tr>')
        cells = (
            f"<td{kind(c)}>{_bar(cell) if c.name == 'weight' else ''}{_breakable(cell)}</td>"
            for c, cell in zip(table.columns, row, strict=True)
        )
        lines.append(f"<tr>{''.join(cells)}</tr>")
    body = "\n".join(lines)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


def _breakable(cell: str) -> str:
    """Escape a cell; a label may break before its bracket, "sd_county" over "[Intercept]"."""
    return escape(cell).replace("[", "<wbr>[")


def _bar(cell: str) -> str:
    try:
        share = min(1.0, max(0.0, float(cell)))
    except ValueError:
        return ""
    return f'<span class="bar"><i style="width:{100 * share:.0f}%"></i></span>'


def _data(entry: Entry) -> str:
    fit = entry.fit
    words = [f"{plural(fit.n_rows, 'row')} used."]
    dropped = getattr(getattr(fit.model, "design", None), "n_dropped", 0)
    if dropped:
        words.append(f"{plural(dropped, 'row')} with missing values dropped, as asked.")
    for group in fit.group_names:
        n = fit.groups(group).drop_duplicates("level")["n"]
        spread = f"{n.min():,.0f}" if n.min() == n.max() else f"{n.min():,.0f} to {n.max():,.0f}"
        each = f"{spread} row{'' if n.max() == 1 else 's'} each"
        if n.min() < n.max():
            each += f" (median {number(float(n.median()), 0)})"
        words.append(f"{group}: {plural(len(n), 'level')} with {each}.")
    out = _p(" ".join(words))
    return out + (_p(f"Source: {entry.source}", "source") if entry.source else "")


def _diagnostics(fit: Any) -> str:
    kinds = ((' class="warned"' if warned else "", line) for line, warned in sentences(fit))
    items = (f"<li{kind}>{escape(line)}</li>" for kind, line in kinds)
    return f"<ul>{''.join(items)}</ul>"


def _reproduce(entries: Sequence[Entry], command: str) -> str:
    parts = ["<h2>How to reproduce</h2>"]
    if command:
        parts += [_p("From the shell:"), f'<pre class="wrap">{escape(command)}</pre>']
    calls = [entry.call or _call(entry.fit) for entry in entries]
    parts += [_p("From Python:"), f'<pre class="wrap">{escape(chr(10).join(["import finetti as fi", *calls]))}</pre>']
    versions = ", ".join(f"{name} {_version(name)}" for name in _PACKAGES if _version(name))
    parts.append(_p(f"Versions: {versions}; Python {platform.python_version()} on {platform.platform(terse=True)}."))
    seeds = dict.fromkeys(str(entry.fit.seed) for entry in entries)
    parts.append(_p(f"Seed: {', '.join(seeds)}. The same versions and the same seed give the same numbers."))
    return "\n".join(parts)


def _call(fit: Any) -> str:
    given: dict[str, Any] = {}
    model = getattr(fit.model, "model", None)
    priors = getattr(model, "priors", None)
    if isinstance(priors, Mapping) and priors:
        given["priors"] = dict(priors)
    pooling = getattr(model, "pooling", "partial")
    if pooling != "partial" and pooling:
        given["pooling"] = dict(pooling) if isinstance(pooling, Mapping) else pooling
    given["seed"] = fit.seed
    rest = ", ".join(f"{name}={as_python(value)}" for name, value in given.items())
    return f"fit = fi.fit({str(fit.formula)!r}, data, {rest})"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        if package == "finetti":  # run from a source tree
            from finetti import __version__

            return __version__
        return ""
