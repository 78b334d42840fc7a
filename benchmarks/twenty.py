"""Twenty (and three more) real data sets with default priors: each passes its own diagnostics, or says why not.

    .venv/bin/python benchmarks/twenty.py                   one line each
    .venv/bin/python benchmarks/twenty.py --reports DIR     and the HTML report of three of them

Exit status 1 if a fit fails its checks without a reason, or raises what is not a FinettiError. The data sets and
their sources are in ../shared/data/multilevel/README.md; the models are chosen to be unlike each other.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from common import SHARED

import finetti as fi


@dataclass(frozen=True)
class Study:
    """A file of the shared data, a model, and what is unusual about it."""

    file: str
    formula: str
    ids: tuple[str, ...]
    what: str
    missing: str = "error"

    @property
    def name(self) -> str:
        return self.file.split(".")[0]


STUDIES = (
    Study("eight_schools.csv", "effect | se(se) ~ 1 + (1 | school)", ("school",), "known standard errors, 8 rows"),
    Study("rail.csv", "travel ~ 1 + (1 | Rail)", ("Rail",), "6 groups, nearly all variance between them"),
    Study("dyestuff.csv", "Yield ~ 1 + (1 | Batch)", ("Batch",), "6 groups of 5"),
    Study("dyestuff2.csv", "Yield ~ 1 + (1 | Batch)", ("Batch",), "REML puts the variance at zero"),
    Study("ergostool.csv", "effort ~ Type + (1 | Subject)", ("Subject",), "4 types, each once per subject"),
    Study("pilots.csv", "success_rate ~ 1 + (1 | group_id) + (1 | scenario_id)", ("group_id", "scenario_id"),
          "5 x 8 crossed, one row per cell"),
    Study("machines.csv", "score ~ Machine + (1 | Worker) + (1 | Worker:Machine)", ("Worker",), "6 workers x 3"),
    Study("pastes.csv", "strength ~ 1 + (1 | batch/cask)", ("batch", "cask"), "nested with implicit ids"),
    Study("penicillin.csv", "diameter ~ 1 + (1 | plate) + (1 | sample)", ("plate", "sample"), "crossed, balanced"),
    Study("orthodont.csv", "distance ~ age * Sex + (1 + age | Subject)", ("Subject",), "slopes, 4 rows per child"),
    Study("rats_growth.csv", "weight ~ age_days + (1 + age_days | rat)", ("rat",), "slopes, 30 rats"),
    Study("sleepstudy.csv", "Reaction ~ Days + (1 + Days | Subject)", ("Subject",), "slopes, 18 subjects"),
    Study("oxboys.csv", "height ~ age + I(age**2) + (1 + age | Subject)", ("Subject",), "slopes, tiny residual"),
    Study("cake.csv", "angle ~ recipe * temp + (1 | recipe:replicate)", ("recipe", "replicate"), "split plot"),
    Study("radon.csv", "log_radon ~ floor + log_uranium + (1 + floor | county)", ("county",),
          "85 counties of 1 to 116 homes"),
    Study("penguins.csv", "body_mass_g ~ sex + flipper_length_mm + (1 | species) + (1 | island)", ("species", "island"),
          "3 levels each, missing cells", missing="drop"),
    Study("scotssec.csv", "attain ~ sex + verbal + (1 | primary) + (1 | second)", ("primary", "second"),
          "148 x 19 crossed, sparse"),
    Study("exam.csv", "normexam ~ standLRT + sex + (1 + standLRT | school)", ("school",), "65 schools of 2 to 198"),
    Study("hsb82.csv", "mAch ~ cses * sector + meanses + (1 + cses | school)", ("school",), "160 schools"),
    Study("egsingle.csv", "math ~ year + (1 + year | schoolid) + (1 | childid)", ("schoolid", "childid"),
          "1,721 children in 60 schools, growth"),
    Study("pdb_radon_all.csv", "log_radon ~ floor_measure + (1 + floor_measure | county_idx)", ("county_idx",),
          "386 counties, 12,573 homes"),
    Study("chem97.csv.gz", "score ~ gcsecnt + gender + (1 | lea/school)", ("lea", "school"), "31,022 rows, nested"),
    Study("insteval.csv.gz", "y ~ service + (1 | s) + (1 | d) + (1 | dept:service)", ("s", "d", "dept", "service"),
          "73,421 rows, crossed"),
)  # fmt: skip
# Reports of a tiny, a crossed and a large one with slopes
REPORTS = ("eight_schools", "penicillin", "exam")


def examine(study: Study, reports: Path | None) -> tuple[str, bool]:
    """Fit one, and return its line and whether it is well or says why not."""
    path = SHARED / study.file
    if not path.exists():
        return f"{study.name:16s} left out: {path.name} is not here", True
    data = pd.read_csv(path, dtype=dict.fromkeys(study.ids, str))
    start = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", fi.FinettiWarning)  # what it says is in the diagnostics, printed below
            fit = fi.fit(study.formula, data, missing=study.missing)
            fit.summary()
            seconds = time.perf_counter() - start
            for group in fit.group_names:
                fit.groups(group)
            if reports is not None and study.name in REPORTS:
                reports.mkdir(parents=True, exist_ok=True)
                fit.report(reports / f"{study.name}.html")
    except fi.FinettiError as refusal:
        return f"{study.name:16s} refused, and says why: {refusal}", True
    except Exception as error:
        return f"{study.name:16s} FAILED with {type(error).__name__}: {error}", False
    d = fit.diagnostics
    groups = ", ".join(f"{f.name} {len(f.levels)}" for f in fit.model.design.factors)
    line = (
        f"{study.name:16s} {fit.n_rows:7,d} {seconds:7.3f} {d.n_hyperparameters:2d} {d.n_nodes:6,d} {d.pareto_k:6.2f} "
        f"{d.pareto_threshold:5.2f} {d.worst_mean_error:6.3f} {d.worst_quantile_error:6.3f}  "
        f"{'ok' if d.ok else 'NOT OK':7s} {groups}; {study.what}"
    )
    said = "".join(f"\n{'':17s}says: {text}" for text in d.warnings)
    reasons = [text for text in d.warnings if "as asked" not in text]  # dropped rows explain no failure
    return line + said, bool(d.ok or reasons)


def main(argv: list[str]) -> int:
    """Print the lines; 1 if one fails without saying why."""
    parser = argparse.ArgumentParser(description="Twenty real data sets with default priors.")
    parser.add_argument("--reports", type=Path, help=f"write the reports of {', '.join(REPORTS)} into this folder")
    parser.add_argument("--only", default="", help="names of data sets, with commas between")
    asked = parser.parse_args(argv)
    wanted = [name.strip() for name in asked.only.split(",") if name.strip()]
    print(f"{'data':16s} {'rows':>7s} {'seconds':>7s} {'θ':>2s} {'nodes':>6s} {'k':>6s} {'max k':>5s} {'means':>6s} "
          f"{'quant.':>6s}  {'checks':7s} groups")  # fmt: skip
    well = []
    for study in STUDIES:
        if wanted and study.name not in wanted:
            continue
        line, fine = examine(study, asked.reports)
        print(line, flush=True)
        well.append(fine)
    print(f"\n{sum(well)} of {len(well)} are ok or say why not")
    return int(not all(well))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
