"""Tables of the report: plain HTML that reads without a script, and that the page's one script makes sortable."""

from __future__ import annotations

from html import escape

from finetti.show.tables import Column, Table

__all__ = ["breakable", "table_html"]

_SHARES = ("weight", "share")  # columns between 0 and 1, with a bar
_FILTER_FROM = 12  # rows; a shorter table is read faster than a filter is typed


def table_html(table: Table, caption: str, noun: str = "rows", kind: str = "sortable") -> str:
    """Return a table in a box that scrolls sideways where the page is narrow.

    Parameters
    ----------
    table : Table
    caption : str
        What it shows, above it.
    noun : str
        What a row is, for the filter box of a long table.
    kind : str
        Its class; a "sortable" one is made so by the script.

    Examples
    --------
    >>> table = Table((Column("level", "g", right=False), Column("n", "n")), (("a<b", "3"),))
    >>> "a&lt;b</td>" in table_html(table, "all")
    True
    """
    head = "".join(f'<th scope="col"{_kind(c)}>{escape(c.title)}</th>' for c in table.columns)
    lines = []
    for i, row in enumerate(table.rows):
        if table.gap is not None and i == table.gap:
            lines.append(f'<tr data-gap><td class="gap" colspan="{len(row)}">… {table.omitted:,} more …</td></tr>')
        cells = (
            f"<td{_kind(c)}>{_bar(cell) if c.name in _SHARES else ''}{escape(cell) if k else breakable(cell)}</td>"
            for k, (c, cell) in enumerate(zip(table.columns, row, strict=True))
        )
        lines.append(f"<tr>{''.join(cells)}</tr>")
    long = f' data-filter="Filter {len(table.rows):,} {escape(noun)}"' if len(table.rows) >= _FILTER_FROM else ""
    body = "\n".join(lines)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table class="{kind}"{long}>'
        f"<caption><span>{escape(caption)}</span></caption>"
        f"<thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>"
    )


def _kind(column: Column) -> str:
    words = {"text": not column.right, "mean": column.name == "mean", "spare": column.spare > 0}
    chosen = " ".join(word for word, is_so in words.items() if is_so)
    return f' class="{chosen}"' if chosen else ""


def breakable(cell: str) -> str:
    """Escape a label that may break after a _ and before its bracket: "sd_", "county", "[Intercept]".

    >>> breakable("sd_g[x<1]")
    'sd_<wbr>g<wbr>[x&lt;1]'
    """
    return escape(cell).replace("_", "_<wbr>").replace("[", "<wbr>[")


def _bar(cell: str) -> str:
    """A bar as long as the share says, drawn without a style attribute, which the page's policy forbids."""
    try:
        share = min(1.0, max(0.0, float(cell)))
    except ValueError:
        return ""
    return (
        '<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        f'<path d="M0 0h{100 * share:.0f}v10H0z"/></svg>'
    )
