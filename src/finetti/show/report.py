"""One self-contained HTML page about one fit or several: what was asked, what was found, whether to trust it.

Nothing is loaded from elsewhere: the style, one script that sorts tables, and the figures are in the file, and a strict
Content-Security-Policy names the style and the script by their hashes, so that nothing else can run. Every text that
comes from the user is escaped. Without the script the page reads the same.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from finetti.errors import FinettiError
from finetti.show import honesty, recipe
from finetti.show import report_parts as parts
from finetti.show.pictures import Picture, pictures
from finetti.show.reading import Reading, is_meta

__all__ = ["Entry", "document", "html", "save", "target_of", "write"]


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
        The call that makes the fit again. Default: written from the fit, with the data where they are few.
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
    sections = [_section(i, entry, alone=len(entries) == 1) for i, entry in enumerate(entries, 1)]
    links = [link for _, own in sections for link in own] + [("reproduce", "How to reproduce")]
    body = "\n".join([*(text for text, _ in sections), _reproduce(entries, command)])
    return document(title, intro, links, body)


def document(
    title: str, intro: str, links: Sequence[tuple[str, str]], body: str, *, styles: Sequence[str] = ("report.css",),
    scripts: Sequence[str] = ("table.js",),
) -> str:  # fmt: skip
    """Return a page from its body, which is HTML; everything else is escaped here.

    Parameters
    ----------
    title, intro : str
        Heading of the page and a sentence below it.
    links : sequence of (anchor, words)
        Table of contents.
    body : str
    styles, scripts : sequence of str
        Files of `finetti.show`, put together into the one style and the one script that the page's policy names.
    """
    shelf = resources.files("finetti.show")
    template, style, script = (
        "\n".join(shelf.joinpath(name).read_text(encoding="utf-8") for name in names)
        for names in (("template.html",), styles, scripts)
    )
    written = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    foot = f"Written by finetti {recipe.version('finetti')} on {written}. This file needs no network."
    return Template(template).substitute(
        title=escape(title),
        intro=parts.paragraph(intro, "intro") if intro and intro != title else "",
        contents="".join(_link(anchor, words) for anchor, words in links),
        body=body,
        footer=parts.paragraph(foot),
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def _link(anchor: str, words: str) -> str:
    within = ' class="sub"' if "honest-" in anchor else ""
    return f'<a href="#{anchor}"{within}>{escape(words)}</a> '


def _hash(text: str) -> str:
    """What a Content-Security-Policy calls a script or a style by (W3C, CSP Level 3, section 2.3.1)."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}"


def write(fit: Any, path: str | os.PathLike[str], title: str | None = None) -> Path:
    """Write the page about one fit; what `Fit.report` does.

    Parameters
    ----------
    fit : Fit
    path : str or path
        The file; a directory gets `report.html` in it.
    title : str, optional
        Heading of the page. Default: the formula.

    Returns
    -------
    pathlib.Path
        The file written.

    Raises
    ------
    FinettiError
        If the file cannot be written.
    """
    target = target_of(path)
    heading = parts.heading(fit) if title is None else str(title)
    return save(html([Entry(heading, fit)], title=heading), target)


def target_of(path: str | os.PathLike[str]) -> Path:
    """Return the file that a report goes to, or raise before anything slow has run; see `write`."""
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path) or "\0" in os.fspath(path):
        raise FinettiError(f"the path of the report was {path!r}; give a file or a directory, such as 'report.html'")
    target = Path(path)
    if target.is_dir():
        target = target / "report.html"
    if not target.parent.is_dir():
        raise FinettiError(
            f"the report cannot be written to {str(path)!r}: there is no directory {str(target.parent)!r}. "
            "Make it first, or give another path"
        )
    return target


def save(page: str, target: Path) -> Path:
    """Write the page, or say why it cannot be written; return the file."""
    try:
        target.write_text(page, encoding="utf-8")
    except OSError as error:
        raise FinettiError(
            f"the report cannot be written to {str(target)!r}: {error.strerror or error}; give a path in a "
            "directory that you may write to"
        ) from None
    return target


def _section(i: int, entry: Entry, *, alone: bool) -> tuple[str, list[tuple[str, str]]]:
    """Return the section of one fit and its links in the table of contents: of a single fit, its parts."""
    fit, probs = Reading(entry.fit), entry.probs
    drawn = entry.figures if entry.figures is not None else pictures(fit)
    found = [("found", "What was found", parts.answer(fit, probs, entry.story, entry.seconds))]
    found.append(("model", "Model", parts.model(fit)))
    found.append(("results", "Results", parts.results(fit, probs)))
    if is_meta(fit):
        found.append(("studies", "Studies", parts.studies(fit, drawn, probs)))
    else:
        for k, group in enumerate(fit.group_names, 1):
            found.append((f"group-{k}", f"Groups: {group}", parts.groups(fit, group, drawn, probs)))
    level = 2 if alone else 3
    prefix = "" if alone else f"fit-{i}-"
    asked = [(f"honest-{section.anchor}", section.heading) for section in honesty.sections(fit)]
    found.append(("honest", "Honest uncertainty", parts.honest(fit, drawn, prefix, level + 1)))
    found += [(p.plan.name, p.plan.heading, parts.figure(p)) for p in drawn if p.plan.alone]
    found.append(("data", "Data and priors", parts.data_and_priors(fit, entry.source)))
    found.append(("diagnostics", "Diagnostics", parts.diagnostics(fit)))
    text = "\n".join(
        f'<section id="{prefix}{anchor}"><h{level}>{escape(heading)}</h{level}>\n{body}\n</section>'
        for anchor, heading, body in found
    )
    if alone:
        links = []
        for anchor, heading, _ in found:
            links += [(anchor, heading), *(asked if anchor == "honest" else [])]
        return text, links
    head = f'<h2 id="fit-{i}">{escape(entry.title)}</h2>'
    return f"<article>{head}\n{text}</article>", [(f"fit-{i}", entry.title)]


def _reproduce(entries: Sequence[Entry], command: str) -> str:
    said = ['<section id="reproduce"><h2>How to reproduce</h2>']
    if command:
        said += [parts.paragraph("From the shell:"), f'<pre class="wrap">{escape(command)}</pre>']
    calls = [[entry.call] if entry.call else [*recipe.preamble(entry.fit), recipe.call(entry.fit)] for entry in entries]
    imports = ["import finetti as fi"]
    if any("pd." in line for own in calls for line in own):
        imports.append("import pandas as pd")
    lines = [*imports, *(line for own in calls for line in ("", *own))]
    lines += ["", "print(fit)"] if len(entries) == 1 else []
    said += [parts.paragraph("From Python:"), f'<pre class="wrap"><code>{escape(chr(10).join(lines))}</code></pre>']
    methods = {entry.fit.diagnostics.method for entry in entries}
    said.append(parts.paragraph(f"Versions: {recipe.versions('nuts' if 'nuts' in methods else '')}."))
    seeds = dict.fromkeys(str(entry.fit.seed) for entry in entries)
    said.append(
        parts.paragraph(f"Seed: {', '.join(seeds)}. The same versions and the same seed give the same numbers.")
    )
    return "\n".join([*said, "</section>"])
