"""Numbers, tables and the terminal: digits that are known, none cut, plain text where no terminal is."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from finetti.show import numbers, tables, text
from show.fakes import FakeFit, eight_schools, group_table, many


def printed(fit, width=120, terminal=False, **kind):
    buffer = io.StringIO()
    out = Console(file=buffer, width=width, force_terminal=terminal, color_system=None, highlight=False, markup=False)
    text.print_fit(out, fit, title="T", **kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("value", "sd", "shown"),
    [(8.0514, 4.73, "8.05"), (1234.56, 56.3, "1234.6"), (1e6 + 0.4, 812.0, "1000000"), (0.00123, 4.6e-5, "0.0012300"),
     (-0.001, 1.0, "0.00"), (np.nan, 1.0, "–"), (np.inf, 1.0, "∞"), (3e-12, 1e-12, "3e-12"), (5e12, 1e12, "5e+12")],
)  # fmt: skip
def test_three_digits_of_the_sd(value, sd, shown):
    assert numbers.number(value, numbers.decimals(sd)) == shown


def test_value_without_uncertainty_keeps_four_digits():
    fit = eight_schools()
    frame = fit.summary()
    frame.loc["sigma"] = [49.51, 0.0, 49.51, 49.51, 49.51, np.nan, np.nan]
    fit.summary = lambda probs: frame
    assert tables.summary_table(fit).rows[-1] == ("sigma", "49.51", "0", "49.51", "49.51", "49.51", "–", "–")


def test_summary_has_the_asked_quantiles_and_dashes_for_missing_moments(schools):
    table = tables.summary_table(schools, (0.025, 0.975))
    assert [c.title for c in table.columns] == ["parameter", "mean", "sd", "2.5 %", "97.5 %", "ess", "mcse"]
    assert table.rows[1][1:3] == ("–", "–")
    assert table.rows[0][-2:] == ("41,234", "0.023")


def test_groups_first_and_last_with_the_gap_told():
    table = tables.groups_table(many(85), "county", 6)
    assert (len(table.rows), table.omitted, table.gap) == (6, 79, 3)
    assert [row[0].split()[-1] for row in table.rows] == ["0", "1", "2", "82", "83", "84"]
    assert "… 79 more" in str(printed(many(85), most_levels=6))


def test_raw_without_information_is_a_dash(subjects):
    row = next(r for r in tables.groups_table(subjects, "Subject").rows if r[:2] == ("331", "Days"))
    assert row[3:5] == ("–", "–")


def test_ill_determined_raw_has_no_digits_to_show():
    table = group_table("AB", [2, 2], [1.0, 123456789.123], [1.0, 1e9])
    assert tables.groups_table(FakeFit({"g": table}), "g").rows[1][2] == "123456789"


def test_piped_output_is_plain_complete_and_without_trailing_space(schools):
    out = printed(schools)
    assert "\x1b" not in out
    assert "…" not in out
    assert not [line for line in out.splitlines() if line != line.rstrip() and "─" not in line and "raw" not in line]
    for words in (
        "effect | se(se) ~ 1 + (1 | school)",
        "u_school[j] ~ Normal",
        "28.00",
        "population",
        "Monte Carlo error",
    ):
        assert words in out


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_narrow_terminal_drops_columns_but_no_digit(schools, width):
    out = printed(schools, width=width, terminal=True)
    assert "28.00" in out
    assert "10.74" in out
    assert "0.14" in out
    assert "…" not in out
    assert ("no room for" in out) == (width < 100)


def test_markup_in_names_is_text():
    table = group_table(["[red]x[/red]", "[/]"], [1, 1], [1.0, 2.0], [1.0, 1.0])
    out = printed(FakeFit({"g[1]": table}, formula="y ~ [bold] (1 | `g[1]`)"))
    for words in ("[red]x[/red]", "[/]", "y ~ [bold]", "Groups: g[1]"):
        assert words in out


def test_failed_check_is_loud_before_the_numbers_and_after():
    out = printed(eight_schools(ok=False, warnings=("Pareto k is 0.92 [x].",)))
    assert out.count("DO NOT USE THIS RESULT") == 2
    assert out.index("DO NOT USE") < out.index("Summary")
    assert "Pareto k is 0.92 [x]." in out


def test_passed_check_is_quiet_and_warnings_are_said_once():
    out = printed(eight_schools(warnings=("Only 8 groups.",)))
    assert "DO NOT" not in out
    assert out.count("Only 8 groups.") == 1


def test_model_without_groups():
    assert "Groups" not in printed(FakeFit({}, formula="y ~ 1 + x"))
