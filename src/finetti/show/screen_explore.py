r"""The tests of a screen in the page: controls, volcano and table, and the rows behind them as compact JSON.

Of at most 20,000 tests all are in the page. Of more, the most convincing are (all discoveries among them, as far as
they fit), and beside them a random sample of the rest, for the shape of the volcano alone. Numbers have five digits. In
JSON, `<` is written \u003c, so that no label can end the element that holds it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from finetti.show.numbers import plural
from finetti.show.outputs import slug
from finetti.show.report_tables import table_html
from finetti.show.screen_reading import ScreenReading, subject
from finetti.show.screen_tables import label_of, places_of, rows_table
from finetti.show.screen_volcano import FDR, lowest_rate
from finetti.show.screen_words import rate

__all__ = ["MOST_POINTS", "Sent", "explore", "sent"]

MOST_POINTS = 20_000
MOST_ROWS = 10_000  # of more tests than points
MOST_BYTES = 2_000_000  # of the data; long labels leave room for fewer
FIRST = 50  # rows in the page itself, for readers without a script; the size of a page of the table
PRECISION = 5


@dataclass(frozen=True)
class Sent:
    """Which tests are in the page.

    Attributes
    ----------
    rows : (m,) their positions, the most convincing first, the sample of the others last
    listed : how many of them are in the table
    total : how many tests there are
    n_found : how many discoveries there are
    """

    rows: np.ndarray
    listed: int
    total: int
    n_found: int

    def words(self, fdr: float) -> str:
        """What is left out, and where it is; "" where all is there."""
        if self.listed == self.total:
            return ""
        points = len(self.rows) - self.listed
        short = ""
        if self.n_found > self.listed:
            short = f" {plural(self.n_found - self.listed, 'discovery')} at FDR {rate(fdr)} did not fit either."
        return (
            f"Of {self.total:,} tests the table holds the {self.listed:,} most convincing, and the volcano these and a "
            f"random sample of {points:,} of the others.{short} All are in found.table(), and in table.csv, which "
            "finetti screen --out writes."
        )


def sent(found: ScreenReading, fdr: float, most: int = MOST_POINTS, rows: int = MOST_ROWS) -> Sent:
    """Choose the tests of the page."""
    order, n_found = found.order, found.discoveries(fdr).n
    n = order.size
    if n <= most:
        return Sent(order, n, n, n_found)
    listed = min(max(rows, n_found), most)
    others = np.random.default_rng(0).choice(n - listed, size=most - listed, replace=False)
    return Sent(np.concatenate([order[:listed], order[listed + np.sort(others)]]), listed, n, n_found)


def _short(values: np.ndarray) -> list[float | int | None]:
    """Numbers of five digits; what is no number is null."""
    out: list[float | int | None] = []
    for v in values.tolist():
        if not np.isfinite(v):
            out.append(None)
            continue
        near = float(f"{v:.{PRECISION}g}")
        out.append(int(near) if near == int(near) and abs(near) < 1e15 else near)
    return out


def data(found: ScreenReading, chosen: Sent) -> str:
    """The rows as JSON that may stand in a page."""
    frame, head = found.table(), rows_table(found, ())
    places = places_of(found)
    floor = lowest_rate(frame["lfsr"].to_numpy(float), frame["qvalue"].to_numpy(float) <= FDR)
    columns: list[dict[str, Any]] = []
    values: dict[str, list[float | int | None]] = {}
    for column in head.columns:
        effects = column.name in ("effect", "se", "mean", "q5", "q95")
        columns.append({"name": column.name, "places": places if effects else None})
        if column.name != "label":
            values[column.name] = _short(frame[column.name].to_numpy(float)[chosen.rows])
    columns[0]["name"] = str(frame.index.name or "test")
    labels = [label_of(v) for v in frame.index.take(chosen.rows).tolist()]
    text = json.dumps(
        {"columns": columns, "label": labels, "values": values, "listed": chosen.listed, "total": chosen.total,
         "places": places, "floor": floor, "file": slug(subject(found))},
        ensure_ascii=False, separators=(",", ":"), allow_nan=False,
    )  # fmt: skip
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def explore(found: ScreenReading, fdr: float, still: str) -> tuple[str, str]:
    """Return the part of the page and what it says is left out; `still` is the figure for those without a script."""
    most = MOST_POINTS
    while True:
        chosen = sent(found, fdr, most, min(MOST_ROWS, most))
        text = data(found, chosen)
        if len(text.encode()) <= MOST_BYTES or most <= 500:
            break
        most = max(500, int(0.9 * most * MOST_BYTES / len(text.encode())))
    left_out = chosen.words(fdr)
    first = rows_table(found, found.order[:FIRST])
    caption = f"{plural(chosen.total, 'test')}, the most convincing first"
    table = table_html(first, caption, kind="tests")
    say_first = (
        f"The {len(first.rows)} most convincing of {chosen.total:,} tests; a browser that runs the script of this page "
        "shows more, found.table() all."
    )
    still = f'<div data-live="off">{still}<p class="aside">{escape(say_first)}</p></div>'
    return (
        f'{_controls(fdr)}{_VOLCANO}{still}\n<div id="tests">{table}</div>\n{_PAGER}'
        f'<script type="application/json" id="screen-data">{text}</script>',
        left_out,
    )


def _controls(fdr: float) -> str:
    return (
        '<div class="pick" data-live="on" hidden>'
        '<label class="find">Search <input type="search" id="search" autocomplete="off" spellcheck="false"></label>'
        '<fieldset><legend class="unseen">Tests shown</legend>'
        '<label><input type="radio" name="rows" value="all" checked> all</label> '
        '<label><input type="radio" name="rows" value="found"> discoveries</label> '
        '<label><input type="radio" name="rows" value="chosen"> selected</label></fieldset>'
        f'<label>FDR <input type="number" id="fdr" min="0" max="100" step="any" value="{100 * fdr:.6g}"> %</label>'
        '<output id="told"></output></div>'
    )


_VOLCANO = (
    '<div data-live="on" hidden><fieldset class="across"><legend class="unseen">Across</legend>'
    '<label><input type="radio" name="across" value="mean" checked> effect after shrinkage</label> '
    '<label><input type="radio" name="across" value="effect"> effect as estimated</label></fieldset>'
    '<p class="upwards" aria-hidden="true">local false sign rate</p>'
    '<div id="volcano" class="volcano" tabindex="0" role="group" aria-label="Volcano of all tests. Up and down: more '
    'and less convincing; left and right: smaller and larger effects; Enter selects."><canvas></canvas>'
    '<canvas></canvas><div id="tip" class="tip" role="status" hidden></div></div>'
    '<p class="aside">A point is a test; in colour are the discoveries at the rate above. Point at one, or use the '
    "arrow keys, for its numbers; click or press Enter to select it here and in the table.</p></div>"
)
_PAGER = (
    '<div class="pick" data-live="on" hidden><span class="pages"><button type="button" id="first" aria-label="First '
    'page">«</button><button type="button" id="back" aria-label="Page before">‹</button><output id="where"></output>'
    '<button type="button" id="next" aria-label="Next page">›</button><button type="button" id="last" '
    'aria-label="Last page">»</button></span><button type="button" id="save-shown"></button>'
    '<button type="button" id="save-chosen"></button><button type="button" id="clear">Clear the selection</button>'
    "</div>"
)
