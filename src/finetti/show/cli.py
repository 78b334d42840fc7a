"""The command line: `finetti demo`, `finetti fit`, `finetti meta`, `finetti screen`.

Everything slow is imported inside the commands, so that `--help` comes at once. A refusal is one line on
stderr and exit status 2; an interruption is exit status 130.
"""

from __future__ import annotations

import gc
import sys
import warnings
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finetti import __version__
from finetti.errors import FinettiError, FinettiWarning
from finetti.show.screen_command import EXAMPLES, screen
from finetti.show.shell import command, data_file, progress

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["app", "main"]

app = typer.Typer(
    name="finetti", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip

# In Rich's markup an opening bracket that is meant is written \[. Lines keep within 78 characters, so that an
# example is never broken where a shell would not continue it.
_EXAMPLES = r"""[bold]Examples[/bold]

  [dim]# two classic analyses, with tables, figures and a report[/dim]
  finetti demo

  [dim]# the same homes again, now with a slope for every county[/dim]
  finetti fit finetti-demo/radon/data.csv \
      "log_radon ~ 1 + floor + (1 + floor | county)"

  [dim]# all options of a command[/dim]
  finetti fit --help"""

_FIT_EXAMPLES = r"""[bold]Examples[/bold], on what `finetti demo` leaves and on fi.datasets.load("sleepstudy")

  [dim]# a slope for every county; tables, draws, figures, report.html in results/[/dim]
  finetti fit finetti-demo/radon/data.csv \
      "log_radon ~ 1 + floor + log_uranium + (1 + floor | county)" \
      --out results

  [dim]# known standard errors, and a heavy-tailed prior on the spread[/dim]
  finetti fit finetti-demo/eight_schools/data.csv \
      "effect | se(se) ~ 1 + (1 | school)" --prior "sd=half_cauchy(5)"

  [dim]# a prior for one coefficient, another for one standard deviation[/dim]
  finetti fit sleepstudy.csv "Reaction ~ 1 + Days + (1 + Days | Subject)" \
      --prior "beta\[Days]=normal(0, 20)" \
      --prior "sd_Subject\[Days]=half_normal(20)"

  [dim]# every subject alone, 95 % intervals, rows with missing values left out[/dim]
  finetti fit sleepstudy.parquet "Reaction ~ 1 + Days + (1 | Subject)" \
      --pooling Subject=none --probs 0.025,0.5,0.975 --missing drop

[bold]Formula[/bold]
  y ~ 1 + x + C(period) + (1 + x | g)     correlated intercepts and slopes
  (1 + x || g)   uncorrelated             (1 | a/b)   b nested in a
  (1 | a:b)      every combination        (1 | a) + (1 | b)   crossed
  y | se(s)      known standard errors    y | se(s, sigma=True)   and more
  y | weights(w) precision weights        offset(x)   a known part

[bold]Priors[/bold]
  normal(mean, sd)     student_t(df, mean, scale)    half_normal(scale)
  half_cauchy(scale)   half_t(df, scale)             exponential(rate)
  gamma(shape, rate)   inverse_gamma(shape, scale)   uniform(low, high)
  lkj(eta)   beta(a, b)   fixed(value)   flat()
  from known standard errors:  jeffreys()   dumouchel()   uniform_shrinkage()
  for a label such as beta\[Days], a variable such as sd_Subject,
  or a class: Intercept, beta, sd, cor, sigma

[bold]Exit status[/bold]
  0 done    2 refused, the reason in one line    130 interrupted"""


_META_EXAMPLES = r"""[bold]Examples[/bold], on what `finetti demo` leaves and on a table of trials

  [dim]# eight schools with a prior from the standard errors alone[/dim]
  finetti meta finetti-demo/eight_schools/data.csv \
      --effect effect --se se --labels school \
      --prior "beta=flat()" --prior "sd=jeffreys()"

  [dim]# variances in a column vi, a covariate, 95 % intervals, all files[/dim]
  finetti meta trials.csv --effect yi --se "sqrt(vi)" --labels author \
      --moderators "ablat + C(alloc)" --probs 0.025,0.5,0.975 --out results

  [dim]# several effects of a paper: a third level[/dim]
  finetti meta effects.csv --effect yi --se sei --cluster paper

  [dim]# known covariance of the errors, a square matrix in the order of the rows[/dim]
  finetti meta outcomes.csv --effect yi --vcov V.csv \
      --moderators "0 + outcome"

[bold]Priors of the heterogeneity[/bold] (key sd, sd_study or sd_cluster)
  half_normal(scale)   half_cauchy(scale)   half_t(df, scale)
  uniform(0, high)     uniform()            the latter improper
  jeffreys()           dumouchel()          uniform_shrinkage()
  made from the standard errors; jeffreys() is improper
  The overall effect has the key Intercept, all coefficients the key beta.

[bold]Exit status[/bold]
  0 done    2 refused, the reason in one line    130 interrupted"""


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"finetti {__version__}")
        raise typer.Exit


@app.callback(epilog=_EXAMPLES)
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """From a table with groups to honest estimates: Bayesian hierarchical models in one call."""


@app.command(epilog="[bold]Example[/bold]\n\n  finetti demo --out finetti-demo")
def demo(
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Where tables, figures and report.html go.")] = (
        "finetti-demo"
    ),
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Write the files, print nothing.")] = False,
) -> None:
    """Fit eight schools and radon in 85 counties, print what was learned, and write a report."""
    from finetti.show.demo import run

    run(out, quiet=quiet, command=command(), progress=progress)


@app.command(epilog=_FIT_EXAMPLES)
def fit(
    data: Annotated[str, typer.Argument(metavar="DATA", help="A CSV or Parquet file, one row per observation.")],
    formula: Annotated[str, typer.Argument(metavar="FORMULA", help='For instance "y ~ 1 + x + (1 + x | group)".')],
    family: Annotated[str, typer.Option(help="Distribution of the response.")] = "gaussian",
    prior: Annotated[
        list[str] | None, typer.Option("--prior", metavar="KEY=PRIOR", help='Such as "sd=half_cauchy(5)". Repeatable.')
    ] = None,
    pooling: Annotated[
        list[str] | None,
        typer.Option(
            "--pooling",
            metavar="KIND|TERM=KIND",
            help="partial, empirical, complete or none. Repeatable.",
            show_default="partial",
        ),
    ] = None,
    missing: Annotated[str, typer.Option(metavar="error|drop", help="What to do with missing values.")] = "error",
    method: Annotated[str, typer.Option(help="How to compute the posterior.")] = "auto",
    draws: Annotated[int, typer.Option(min=4, help="Posterior draws to keep.")] = 4000,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same numbers.")] = 0,
    probs: Annotated[str, typer.Option(metavar="P,P,...", help="Quantiles of the tables.")] = "0.05,0.5,0.95",
    out: Annotated[
        str | None, typer.Option("--out", metavar="DIR", help="Write tables, draws, figures and report.html there.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Fit a hierarchical model to a table and print the estimates."""
    from finetti.show import arguments

    options: dict[str, Any] = {
        "family": family,
        "priors": arguments.parse_priors(prior or ()),
        "pooling": arguments.parse_pooling(pooling or ()),
        "missing": missing,
        "method": method,
        "draws": draws,
        "seed": seed,
    }
    quantiles = arguments.parse_probs(probs)
    path = data_file(data)

    def compute(progress: Any) -> Any:
        from finetti.posterior.api import fit as compute

        return compute(formula, path, progress=progress, **options)

    call = f"fit = fi.fit({formula!r}, {data!r}{_given(options)})"
    _show(compute, path, call, intro=formula, probs=quantiles, out=out, quiet=quiet)


@app.command(epilog=_META_EXAMPLES)
def meta(
    data: Annotated[str, typer.Argument(metavar="DATA", help="A CSV or Parquet file, one row per effect.")],
    effect: Annotated[str, typer.Option("--effect", metavar="COL", help='Column, or such as "log(rr)".')],
    se: Annotated[
        str | None, typer.Option("--se", metavar="COL", help='Standard errors; of variances, "sqrt(vi)".')
    ] = None,
    labels: Annotated[str | None, typer.Option("--labels", metavar="COL", help="Names of the studies.")] = None,
    moderators: Annotated[
        str | None, typer.Option("--moderators", metavar="RHS", help='Covariates, such as "year + C(design)".')
    ] = None,
    cluster: Annotated[
        str | None, typer.Option("--cluster", metavar="COL", help="What several effects have in common.")
    ] = None,
    vcov: Annotated[
        str | None, typer.Option("--vcov", metavar="FILE.csv", help="Known covariance of the errors, a square matrix.")
    ] = None,
    prior: Annotated[
        list[str] | None, typer.Option("--prior", metavar="KEY=PRIOR", help='Such as "sd=jeffreys()". Repeatable.')
    ] = None,
    missing: Annotated[str, typer.Option(metavar="error|drop", help="What to do with missing values.")] = "error",
    method: Annotated[str, typer.Option(help="How to compute the posterior.")] = "auto",
    draws: Annotated[int, typer.Option(min=4, help="Posterior draws to keep.")] = 4000,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same numbers.")] = 0,
    probs: Annotated[str, typer.Option(metavar="P,P,...", help="Quantiles of the tables.")] = "0.05,0.5,0.95",
    out: Annotated[
        str | None, typer.Option("--out", metavar="DIR", help="Write tables, draws, figures and report.html there.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Combine studies: overall effect, heterogeneity, every study shrunk, a new study."""
    from finetti.show import arguments

    if se is None and vcov is None:
        raise FinettiError("Standard errors are needed: --se COL (of variances: --se 'sqrt(vi)'), or --vcov FILE.csv.")
    options: dict[str, Any] = {
        "labels": labels,
        "moderators": moderators,
        "cluster": cluster,
        "priors": arguments.parse_priors(prior or ()),
        "missing": missing,
        "method": method,
        "draws": draws,
        "seed": seed,
    }
    quantiles = arguments.parse_probs(probs)
    path = data_file(data)
    V = None if vcov is None else arguments.read_square(data_file(vcov, "--vcov file"))

    def compute(progress: Any) -> Any:
        from finetti.studies.meta import meta as compute

        return compute(effect, se, path, V=V, progress=progress, **options)

    known = "" if vcov is None else f", V=pd.read_csv({vcov!r}, header=None)"
    call = f"fit = fi.meta({effect!r}, {se!r}, {data!r}{known}{_given(options)})"
    intro = f"Meta-analysis of {effect}"
    _show(compute, path, call, intro=intro, probs=quantiles, out=out, quiet=quiet)


app.command(epilog=EXAMPLES)(screen)


# What the functions take where nothing is said. The seed is always written: it is what makes the numbers come again.
_USUAL: dict[str, Any] = {
    "family": "gaussian", "labels": None, "moderators": None, "cluster": None, "priors": None, "pooling": "partial",
    "missing": "error", "method": "auto", "draws": 4000,
}  # fmt: skip


def _given(options: dict[str, Any]) -> str:
    """The options that differ from the usual, as arguments in Python."""
    from finetti.show import arguments

    return "".join(f", {k}={arguments.as_python(v)}" for k, v in options.items() if _USUAL.get(k, ...) != v)


def _show(
    compute: Callable[[Any], Any], path: Path, call: str, *, intro: str, probs: tuple[float, ...], out: str | None,
    quiet: bool,
) -> None:  # fmt: skip
    """Compute a fit, print it, and write it where `--out` says; `compute` takes the callable for progress."""
    from time import perf_counter

    from finetti.show import outputs, text
    from finetti.show.reading import Reading
    from finetti.show.report import Entry

    directory = outputs.prepare(out) if out is not None else None
    with progress(quiet) as report_progress:
        start = perf_counter()
        fitted = Reading(compute(report_progress))
        seconds = perf_counter() - start
    entry = Entry(path.name, fitted, probs=probs, seconds=seconds, call=call)
    console = text.console(quiet=quiet)
    full = "--out DIR writes them all" if directory is None else f"all in {directory}"
    text.print_fit(console, fitted, title=path.name, probs=probs, seconds=seconds, full=full)
    if directory is not None:
        entry, _ = outputs.write_entry(entry, directory)
        outputs.write_report([entry], directory, title=f"finetti: {path.name}", intro=intro, command=command())
        _say_where(console, directory)


def _say_where(console: Any, directory: Any) -> None:
    console.print(f"Wrote {directory / 'report.html'} (tables, draws and figures beside it).")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def main() -> None:
    """Run the command line; what `finetti` and `python -m finetti` call."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal without unicode shows "?" for a letter that it lacks, and no traceback.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    # A short life with many imports: the collector would only walk, again and again, over what lives to the end.
    warnings.simplefilter("ignore", FinettiWarning)  # a failed fit has a banner of its own here
    thresholds = gc.get_threshold()
    gc.set_threshold(200_000, 50, 50)
    try:
        app(prog_name="finetti")
    except FinettiError as error:
        print(f"finetti: {_one_line(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        _hush()
    except OSError as error:
        where = f" {error.filename!r}" if error.filename else ""
        print(f"finetti: the system refused{where}: {error.strerror or _one_line(error)}", file=sys.stderr)
        sys.exit(2)
    finally:
        gc.set_threshold(*thresholds)


def _hush() -> None:
    """Send the rest of stdout nowhere, so that the interpreter does not complain while it shuts down."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
