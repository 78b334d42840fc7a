"""`finetti screen`: from a table of effects, or a raw matrix and a design, to discoveries, tables, figures, a report.

What is slow is imported inside, so that `--help` comes at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finetti.errors import DataError, FinettiError
from finetti.show.shell import command, data_file, progress

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["EXAMPLES", "screen"]

EXAMPLES = r"""[bold]Examples[/bold]

  [dim]# effects and standard errors, names in a column gene; all files in results/[/dim]
  finetti screen results.csv --effect log2FoldChange --se lfcSE \
      --labels gene --missing drop --out results

  [dim]# z-values alone, at a false discovery rate of 10 %[/dim]
  finetti screen z.csv --effect z --fdr 0.1

  [dim]# t-distributed errors, and effects of at least 0.5[/dim]
  finetti screen results.csv --effect estimate --se se --df df --at-least 0.5

  [dim]# from a raw matrix, genes in rows, samples in columns[/dim]
  finetti screen expression.csv --design "~ 0 + group" --samples samples.csv \
      --contrast "group\[cancer] - group\[healthy]" --labels gene

  [dim]# share of nulls and size of effects that depend on a covariate[/dim]
  finetti screen results.csv --effect beta --se se --by expression

[bold]Priors[/bold] (keys pi0, slab_sd, null_mean, null_sd)
  --prior "pi0=beta(1, 1)"   --prior "null_sd=fixed(1.2)"

[bold]Exit status[/bold]
  0 done    2 refused, the reason in one line    130 interrupted"""

_RATE = 0.05


def screen(
    data: Annotated[
        str, typer.Argument(metavar="FILE", help="A CSV or Parquet file: a row per test, or a matrix, genes in rows.")
    ],
    effect: Annotated[
        str | None, typer.Option("--effect", metavar="COL", help="Estimated effects; without --se, z-values.")
    ] = None,
    se: Annotated[str | None, typer.Option("--se", metavar="COL", help="Their standard errors.")] = None,
    df: Annotated[
        str | None, typer.Option("--df", metavar="COL", help="Degrees of freedom of the errors, or one number.")
    ] = None,
    labels: Annotated[str | None, typer.Option("--labels", metavar="COL", help="Names of the tests.")] = None,
    by: Annotated[
        str | None, typer.Option("--by", metavar="COL", help="A covariate: share of nulls and slab vary with it.")
    ] = None,
    design: Annotated[
        str | None, typer.Option("--design", metavar="RHS", help='Of a matrix: such as "~ group".')
    ] = None,
    samples: Annotated[
        str | None, typer.Option("--samples", metavar="FILE", help="The table of samples that --design speaks of.")
    ] = None,
    sample_column: Annotated[
        str | None, typer.Option("--sample-column", metavar="COL", help="Its column with the samples' names.")
    ] = None,
    contrast: Annotated[
        str | None, typer.Option("--contrast", metavar="EXPR", help='Such as "b - a"; one coefficient needs none.')
    ] = None,
    trend: Annotated[
        bool, typer.Option("--trend", help="The variances of genes depend on their average expression.")
    ] = False,
    null: Annotated[str, typer.Option(metavar="free|theoretical", help="Learn the null, or take N(0, 1).")] = "free",
    slab: Annotated[
        str, typer.Option(metavar="normal|laplace|student_t|mixture", help="Distribution of effects not null.")
    ] = "normal",
    method: Annotated[str, typer.Option(metavar="full|empirical", help="Full Bayes, or maximum likelihood.")] = "full",
    prior: Annotated[
        list[str] | None, typer.Option("--prior", metavar="KEY=PRIOR", help='Such as "pi0=beta(1, 1)". Repeatable.')
    ] = None,
    fdr: Annotated[float, typer.Option("--fdr", help="Rate of false discoveries.")] = _RATE,
    at_least: Annotated[
        float | None, typer.Option("--at-least", metavar="DELTA", help="Discover effects beyond this size.")
    ] = None,
    missing: Annotated[str, typer.Option(metavar="error|drop", help="What to do with missing values.")] = "error",
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same numbers.")] = 0,
    out: Annotated[
        str | None, typer.Option("--out", metavar="DIR", help="Write tables, figures and report.html there.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Screen thousands of tests: which effects are not null, how large, and how sure is that."""
    from finetti.show import arguments

    given = {"--se": se, "--df": df, "--by": by}
    of_matrix = {"--samples": samples, "--sample-column": sample_column, "--contrast": contrast,
                 "--trend": trend or None}  # fmt: skip
    _check_source(effect, design, given, of_matrix)
    if not 0 < fdr < 1:
        raise FinettiError(f"--fdr got {fdr:g}, expected a rate between 0 and 1, such as {_RATE:g}.")
    if at_least is not None and not 0 <= at_least < float("inf"):
        raise FinettiError(f"--at-least got {at_least:g}, expected a size from 0 up, in units of the effect.")
    if missing not in ("error", "drop"):
        raise FinettiError(f"--missing got {missing!r}, expected error or drop.")
    options: dict[str, Any] = {"null": null, "slab": slab, "priors": arguments.parse_priors(prior or ()),
                               "method": method, "seed": seed}  # fmt: skip
    path = data_file(data)
    if effect is not None:
        names = {"effect": effect, "se": se, "df": df, "by": by, "labels": labels}
        source = _effects(path, data, names, missing)
    else:
        assert design is not None
        if samples is None:
            raise FinettiError("--design speaks of columns of a table of samples: name it, --samples SAMPLES.csv.")
        table = data_file(samples, "--samples file")
        source = _matrix(path, data, design, table, samples, sample_column, contrast, trend, labels, seed)
    _run(source, options, path, fdr=fdr, at_least=at_least, out=out, quiet=quiet)


def _check_source(effect: str | None, design: str | None, given: dict[str, Any], of_matrix: dict[str, Any]) -> None:
    if effect is None and design is None:
        raise FinettiError(
            "Say what the file holds: --effect COL (with --se COL; of z-values alone without) for a table of tests, or "
            "--design '~ group' --samples SAMPLES.csv for a matrix with genes in rows and samples in columns."
        )
    if effect is not None and design is not None:
        raise FinettiError("--effect and --design exclude each other: a table of effects, or a raw matrix.")
    wrong = [name for name, value in (of_matrix if design is None else given).items() if value is not None]
    if wrong:
        kind, needs = ("a table of effects", "--design") if design is None else ("a raw matrix", "--effect")
        raise FinettiError(f"{', '.join(wrong)} cannot be used with {kind}: it needs {needs}.")


@dataclass(frozen=True)
class _Source:
    """How the tests are made.

    arguments : makes the arguments of `finetti.screen`, given a callable for progress
    call : the lines before the options of the call, and its arguments
    """

    arguments: Callable[[Any], tuple[list[Any], dict[str, Any]]]
    before: tuple[str, ...]
    call: tuple[str, ...]
    dropped: int = 0


def _effects(path: Path, shown: str, names: dict[str, str | None], missing: str) -> _Source:
    """A table with a row per test; rows without all of its numbers are named, or dropped and counted."""
    from finetti.data.frames import read

    df = names["df"]
    one_df = None if df is None else _as_number(df)
    columns = {role: name for role, name in names.items() if name is not None and not (role == "df" and one_df)}
    table = read(path)
    read_columns = {name: table.column(name) for name in dict.fromkeys(columns.values())}
    needed = list(dict.fromkeys(name for role, name in columns.items() if role != "labels"))
    rows, said = _complete(read_columns, needed, columns.get("labels"), shown, missing)
    keyword: dict[str, Any] = {role: name for role, name in names.items() if role != "effect" and name is not None}
    if one_df:
        keyword["df"] = one_df
    before: tuple[str, ...] = ()
    data = repr(shown)
    if rows is None:
        keyword["data"] = path
    else:
        import pandas as pd

        kept = {name: column.iloc[rows] for name, column in read_columns.items()}
        keyword["data"] = pd.DataFrame(kept).reset_index(drop=True)
        if names["labels"] is None:
            keyword["labels"] = pd.Index(rows, name="test")  # as the file counts them, not as those that are left
        reader = "read_parquet" if path.suffix == ".parquet" else "read_csv"
        separator = ', sep="\\t"' if ".tsv" in path.suffixes else ""
        before, data = (f"data = pd.{reader}({shown!r}{separator}).dropna(subset={needed!r})",), "data"
    positional = [names["effect"], *([names["se"]] if names["se"] else [])]
    keyword.pop("se", None)
    told = {k: "data.index" if k == "labels" and names[k] is None else repr(v) for k, v in keyword.items()}
    call = [*(repr(v) for v in positional), f"data={data}", *(f"{k}={v}" for k, v in told.items() if k != "data")]
    return _Source(lambda _: (list(positional), keyword), before, tuple(call), said)


def _as_number(text: str) -> float | None:
    """A number of degrees of freedom; None where it is the name of a column."""
    try:
        return float(text)
    except ValueError:
        return None


def _complete(
    columns: dict[str, Any], needed: list[str], labels: str | None, shown: str, missing: str
) -> tuple[Any, int]:
    """Positions of the rows without gaps (None: all of them), and how many have some."""
    import numpy as np

    from finetti.data.columns import missing_mask

    gaps = {name: missing_mask(columns[name]) for name in needed}
    lacking = np.logical_or.reduce(list(gaps.values()))
    n = int(lacking.sum())
    if n == 0:
        return None, 0
    if missing == "drop":
        if n == lacking.size:
            raise DataError(f"Every row of {shown!r} has a missing value in {', '.join(map(repr, needed))}.")
        return np.flatnonzero(~lacking), n
    first = int(np.flatnonzero(lacking)[0])
    name = next(name for name in needed if gaps[name][first])
    called = f" ({columns[labels].iloc[first]})" if labels is not None else ""
    raise DataError(
        f"Row {first + 1} of {shown!r}{called} has no value in column {name!r} (rows count from 1, below the header), "
        f"and so it is in {n:,} of {lacking.size:,} rows. Leave them out with --missing drop, or fill them in."
    )


def _matrix(
    path: Path, shown: str, design: str, table: Path, table_shown: str, sample_column: str | None, contrast: str | None,
    trend: bool, labels: str | None, seed: int,
) -> _Source:  # fmt: skip
    """A raw matrix, its variances moderated first."""
    given: dict[str, Any] = {"contrasts": contrast, "trend": trend or None, "labels": labels, "samples": sample_column,
                             "seed": seed}  # fmt: skip

    def arguments(report: Any) -> tuple[list[Any], dict[str, Any]]:
        from finetti.studies.moderate import moderate

        found = moderate(
            path, design, contrast, trend, seed=seed, data=table, labels=labels, samples=sample_column, progress=report
        )
        if len(found.contrasts) > 1:
            raise FinettiError(
                f"The design has {len(found.contrasts)} coefficients besides the intercept "
                f"({', '.join(found.contrasts[:6])}{', ...' if len(found.contrasts) > 6 else ''}): say which one, or "
                f"which difference, with --contrast {found.contrasts[0]!r}."
            )
        return [found], {}

    told = "".join(f", {k}={v!r}" for k, v in given.items() if v is not None)
    before = f"moderated = fi.moderate({shown!r}, {design!r}, data={table_shown!r}{told})"
    return _Source(arguments, (before,), ("moderated",))


def _run(
    source: _Source, options: dict[str, Any], path: Path, *, fdr: float, at_least: float | None, out: str | None,
    quiet: bool,
) -> None:  # fmt: skip
    """Compute the screen, print it, and write it where `--out` says."""
    from time import perf_counter

    from finetti.show import outputs, screen_terminal, text
    from finetti.show.arguments import as_python
    from finetti.show.screen_reading import ScreenReading
    from finetti.studies.screen import screen as compute

    directory = outputs.prepare(out) if out is not None else None
    with progress(quiet) as report:
        start = perf_counter()
        positional, keyword = source.arguments(report)
        found = ScreenReading(compute(*positional, **{**keyword, **options, "progress": report}))
        seconds = perf_counter() - start
        if report is not None:
            report("tables", 0, None)
        found.discoveries(fdr)
    console = text.console(quiet=quiet)
    full = "--out DIR writes all" if directory is None else f"all in {directory / 'table.csv'}"
    screen_terminal.print_screen(
        console, found, title=path.name, fdr=fdr, at_least=at_least, seconds=seconds, dropped=source.dropped, full=full
    )
    if directory is None:
        return
    usual = {"null": "free", "slab": "normal", "priors": None, "method": "full"}
    told = [f"{k}={as_python(v)}" for k, v in options.items() if usual.get(k, ...) != v]
    call = "\n".join([*source.before, f"found = fi.screen({', '.join([*source.call, *told])})"])
    with progress(quiet) as report:
        if report is not None:
            report("figures and report", 0, None)
        screen_terminal.write_screen(
            found, directory, title=f"finetti: {path.name}", fdr=fdr, at_least=at_least, source=path.name,
            seconds=seconds, dropped=source.dropped, call=call, command=command(),
        )  # fmt: skip
    console.print(f"Wrote {directory / 'report.html'} (tables and figures beside it).")
