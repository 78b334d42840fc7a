"""finetti: Bayesian hierarchical modelling, one call from a table with groups to honest estimates.

The public names are loaded when they are first used (PEP 562), so that ``import finetti``
takes milliseconds and a script that only writes a model down never pays for the machinery
that would fit it.

Examples
--------
>>> import finetti as fi
>>> fi.datasets.load("eight_schools").shape
(8, 3)
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = [
    "DataError",
    "FinettiError",
    "FinettiWarning",
    "Fit",
    "FormulaError",
    "InferenceError",
    "Meta",
    "Model",
    "ModelError",
    "Moderated",
    "NotBuiltError",
    "PredictionError",
    "PriorError",
    "Screen",
    "__version__",
    "beta",
    "calibrate",
    "compare",
    "coverage",
    "datasets",
    "dumouchel",
    "exponential",
    "fit",
    "fixed",
    "flat",
    "gamma",
    "half_cauchy",
    "half_normal",
    "half_t",
    "inverse_gamma",
    "jeffreys",
    "lkj",
    "load",
    "meta",
    "moderate",
    "normal",
    "screen",
    "student_t",
    "uniform",
    "uniform_shrinkage",
]

if TYPE_CHECKING:  # what a type checker and an editor see; the same names as _HOME below
    from finetti import datasets
    from finetti.errors import (
        DataError,
        FinettiError,
        FinettiWarning,
        FormulaError,
        InferenceError,
        ModelError,
        NotBuiltError,
        PredictionError,
        PriorError,
    )
    from finetti.model.model import Model
    from finetti.model.priors import (
        beta,
        dumouchel,
        exponential,
        fixed,
        flat,
        gamma,
        half_cauchy,
        half_normal,
        half_t,
        inverse_gamma,
        jeffreys,
        lkj,
        normal,
        student_t,
        uniform,
        uniform_shrinkage,
    )
    from finetti.posterior.api import fit
    from finetti.posterior.calibration import calibrate
    from finetti.posterior.compare import compare
    from finetti.posterior.coverage import coverage
    from finetti.posterior.fit import Fit
    from finetti.posterior.store import load
    from finetti.studies.meta import Meta, meta
    from finetti.studies.moderate import Moderated, moderate
    from finetti.studies.screen import Screen, screen
else:  # hidden from type checkers, to whom a module `__getattr__` would make every misspelt name valid
    _HOME = {
        "finetti.errors": (
            "DataError FinettiError FinettiWarning FormulaError InferenceError ModelError NotBuiltError "
            "PredictionError PriorError"
        ),
        "finetti.model.model": "Model",
        "finetti.model.priors": (
            "beta dumouchel exponential fixed flat gamma half_cauchy half_normal half_t inverse_gamma jeffreys lkj "
            "normal student_t uniform uniform_shrinkage"
        ),
        "finetti.posterior.api": "fit",
        "finetti.posterior.calibration": "calibrate",
        "finetti.posterior.compare": "compare",
        "finetti.posterior.coverage": "coverage",
        "finetti.posterior.fit": "Fit",
        "finetti.posterior.store": "load",
        "finetti.studies.meta": "Meta meta",
        "finetti.studies.moderate": "Moderated moderate",
        "finetti.studies.screen": "Screen screen",
    }
    _MODULE_OF = {name: module for module, names in _HOME.items() for name in names.split()}

    def __getattr__(name: str):
        from importlib import import_module

        if name == "datasets":
            return import_module("finetti.datasets")  # the import itself binds the name here
        if name not in _MODULE_OF:
            raise AttributeError(f"module 'finetti' has no attribute {name!r}")
        value = getattr(import_module(_MODULE_OF[name]), name)
        globals()[name] = value  # the second use is an ordinary attribute
        return value


def __dir__() -> list[str]:
    return sorted({*__all__, *globals()})
