"""What each shipped data set is: its size, its columns with units, its published source.

One entry per CSV file beside this module; `README.md` says the same for readers, and a test
holds the three together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from textwrap import fill

__all__ = ["CATALOGUE", "Dataset"]

_WIDTH = 100  # columns, for a terminal


@dataclass(frozen=True)
class Dataset:
    """One shipped table.

    Attributes
    ----------
    name : str
        Name of the CSV file without its ending.
    title : str
        What was observed, in one line.
    rows : int
        Number of rows.
    columns : Mapping of str to str
        Each column's meaning and unit, in the file's order.
    ids : tuple of str
        The columns that label groups; they are read as text, whatever they look like.
    formula : str
        A model that the literature fits to the table.
    source : str
        The publication that the numbers come from.
    """

    name: str
    title: str
    rows: int
    columns: Mapping[str, str]
    ids: tuple[str, ...]
    formula: str
    source: str

    def __str__(self) -> str:
        pad = max(map(len, self.columns)) + 4
        lines = [f"{self.name}: {self.title} ({self.rows} rows)"]
        lines += [f"  {column:{pad}}{meaning}" for column, meaning in self.columns.items()]
        lines.append(f"Try: {self.formula}")
        lines.append(
            fill(f"Source: {self.source}", _WIDTH, subsequent_indent=" " * len("Source: "), break_on_hyphens=False)
        )
        return "\n".join(lines)


_RUBIN = (
    "Rubin, D. B. (1981). Estimation in parallel randomized experiments. "
    "Journal of Educational Statistics 6(4), 377-401."
)
_DAVIES = (
    "Davies, O. L. & Goldsmith, P. L. (eds.) (1972). Statistical Methods in Research and Production, 4th ed. "
    "Oliver and Boyd, Edinburgh"
)

_ALL = (
    Dataset(
        name="eight_schools",
        title="Effect of coaching on SAT-V scores in eight schools, rounded to points",
        rows=8,
        columns={
            "school": "school (8), one randomised experiment each",
            "effect": "estimated effect of coaching, points",
            "se": "its standard error, taken as known, points",
        },
        ids=("school",),
        formula="effect | se(se) ~ 1 + (1 | school)",
        source=_RUBIN
        + " Rounded as in Gelman, A. et al. (2013). Bayesian Data Analysis, 3rd ed. Chapman & Hall/CRC, table 5.2.",
    ),
    Dataset(
        name="eight_schools_unrounded",
        title="Effect of coaching on SAT-V scores in eight schools, as first published",
        rows=8,
        columns={
            "school": "school (8), one randomised experiment each",
            "effect": "estimated effect of coaching, points",
            "se": "its standard error, taken as known, points",
        },
        ids=("school",),
        formula="effect | se(se) ~ 1 + (1 | school)",
        source=_RUBIN,
    ),
    Dataset(
        name="bcg",
        title="Vaccination against tuberculosis in 13 trials",
        rows=13,
        columns={
            "trial": "first author and year (13)",
            "year": "year of publication",
            "tpos": "vaccinated people with tuberculosis",
            "tneg": "vaccinated people without",
            "cpos": "people of the control group with tuberculosis",
            "cneg": "people of the control group without",
            "latitude": "absolute latitude of the place, degrees",
            "allocation": "how people were assigned: random, alternate or systematic (3)",
            "log_rr": "natural log of the relative risk, from the four counts",
            "se": "its standard error (delta method), taken as known",
        },
        ids=("trial", "allocation"),
        formula="log_rr | se(se) ~ 1 + latitude + (1 | trial)",
        source="Colditz, G. A. et al. (1994). Efficacy of BCG vaccine in the prevention of tuberculosis: meta-analysis "
        "of the published literature. JAMA 271(9), 698-702.",
    ),
    Dataset(
        name="radon",
        title="Indoor radon in 919 homes of 85 counties in Minnesota",
        rows=919,
        columns={
            "log_radon": "natural log of radon activity, pCi/L; readings of 0 entered as 0.1 pCi/L",
            "floor": "where it was measured: 0 basement, 1 first floor",
            "county": "county of Minnesota (85)",
            "log_uranium": "natural log of the county's soil uranium, ppm; one value per county",
        },
        ids=("county",),
        formula="log_radon ~ 1 + floor + log_uranium + (1 + floor | county)",
        source="Price, P. N., Nero, A. V. & Gelman, A. (1996). Bayesian prediction of mean indoor radon concentrations "
        "for Minnesota counties. Health Physics 71(6), 922-936. Also Gelman, A. & Hill, J. (2007). Data Analysis Using "
        "Regression and Multilevel/Hierarchical Models. Cambridge University Press, chapter 12.",
    ),
    Dataset(
        name="sleepstudy",
        title="Reaction time of 18 people over ten days of restricted sleep",
        rows=180,
        columns={
            "Reaction": "mean reaction time, ms",
            "Days": "day of the study, 0 to 9",
            "Subject": "subject (18)",
        },
        ids=("Subject",),
        formula="Reaction ~ 1 + Days + (1 + Days | Subject)",
        source="Belenky, G. et al. (2003). Patterns of performance degradation and restoration during sleep "
        "restriction and subsequent recovery: a sleep dose-response study. Journal of Sleep Research 12(1), 1-12.",
    ),
    Dataset(
        name="dyestuff",
        title="Yield of dyestuff from six batches of an intermediate product",
        rows=30,
        columns={"Yield": "yield, grams of standard colour", "Batch": "batch of the intermediate product (6)"},
        ids=("Batch",),
        formula="Yield ~ 1 + (1 | Batch)",
        source=f"{_DAVIES}, section 6.4.",
    ),
    Dataset(
        name="dyestuff2",
        title="Simulated yields whose batch variance is estimated as zero: the boundary case",
        rows=30,
        columns={"Yield": "simulated yield, no unit", "Batch": "batch (6)"},
        ids=("Batch",),
        formula="Yield ~ 1 + (1 | Batch)",
        source="Box, G. E. P. & Tiao, G. C. (1973). Bayesian Inference in Statistical Analysis. "
        "Addison-Wesley, Reading, table 5.1.4.",
    ),
    Dataset(
        name="penicillin",
        title="Growth inhibition by six samples of penicillin on each of 24 plates: fully crossed",
        rows=144,
        columns={
            "diameter": "diameter of the zone of inhibition, mm",
            "plate": "assay plate (24)",
            "sample": "sample of penicillin (6)",
        },
        ids=("plate", "sample"),
        formula="diameter ~ 1 + (1 | plate) + (1 | sample)",
        source=f"{_DAVIES}, section 6.6.",
    ),
    Dataset(
        name="pastes",
        title="Strength of a chemical paste: two assays of three casks from each of ten batches, nested",
        rows=60,
        columns={
            "strength": "strength of the paste",
            "batch": "delivery batch (10)",
            "cask": "cask within the batch (a, b, c): cask a of batch A is not cask a of batch B",
            "sample": "batch:cask (30), the same nesting written out",
        },
        ids=("batch", "cask", "sample"),
        formula="strength ~ 1 + (1 | batch/cask)",
        source=f"{_DAVIES}, section 6.5.",
    ),
    Dataset(
        name="leukaemia",
        title="Two kinds of acute leukaemia compared gene by gene, 47 against 25 patients",
        rows=7128,
        columns={
            "gene": "probe of the microarray (7128)",
            "estimate": "mean of AML less mean of ALL, log10 of normalised expression",
            "se": "its standard error, from the pooled variance of the gene, same unit",
            "df": "degrees of freedom of the standard error",
        },
        ids=("gene",),
        formula='fi.screen("estimate", "se", df="df", labels="gene", data=data)',
        source=(
            "Golub, T. R. et al. (1999). Molecular classification of cancer: class discovery and class prediction by "
            "gene expression monitoring. Science 286(5439), 531-537. Means and errors computed from the expression "
            "values of 72 patients as normalised for Efron, B. (2010), Large-Scale Inference, Cambridge University "
            "Press, chapter 1."
        ),
    ),
)

CATALOGUE: Mapping[str, Dataset] = {dataset.name: dataset for dataset in _ALL}
