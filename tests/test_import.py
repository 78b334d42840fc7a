"""`import finetti` is quick, loads nothing heavy, and every public name resolves."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import finetti

HEAVY = ("arviz", "formulaic", "matplotlib", "numba", "nutpie", "pandas", "pyarrow", "scipy.stats", "xarray")

MEASURE = """
import json, sys, time
start = time.process_time()
import finetti
print(json.dumps({"seconds": time.process_time() - start, "modules": sorted(sys.modules)}))
"""


def run(code: str) -> dict:
    """Run code in a fresh interpreter and return the JSON that it prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_import_takes_less_than_three_tenths_of_a_second():
    # CPU time, the best of five: what the import costs, not what else the machine was doing.
    assert min(run(MEASURE)["seconds"] for _ in range(5)) < 0.3


def test_import_loads_nothing_heavy():
    assert not set(run(MEASURE)["modules"]) & set(HEAVY)


def test_writing_a_model_down_loads_nothing_heavy():
    """The vocabulary of models and priors needs no plotting, no compiler and no data frames."""
    code = """
import json, sys
import finetti as fi
fi.Model("y ~ 1 + x + (1 + x | g)", priors={"sd": fi.half_cauchy(5), "cor": fi.lkj(2)})
fi.datasets.describe("radon")
print(json.dumps({"modules": sorted(sys.modules)}))
"""
    assert not set(run(code)["modules"]) & set(HEAVY)


@pytest.mark.parametrize("name", finetti.__all__)
def test_every_public_name_resolves(name):
    assert getattr(finetti, name) is not None
    assert name in dir(finetti)


def test_names_are_what_they_say():
    """A function may not be shadowed by the submodule of the same name, whatever is imported first."""
    code = """
import json, importlib
import finetti as fi
for module in ("finetti.posterior.fit", "finetti.model.model", "finetti.datasets"):
    importlib.import_module(module)
print(json.dumps({"fit": callable(fi.fit), "model": isinstance(fi.Model, type), "result": isinstance(fi.Fit, type)}))
"""
    assert run(code) == {"fit": True, "model": True, "result": True}


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'finetti' has no attribute 'fitt'"):
        _ = finetti.fitt


def test_type_checkers_are_told_the_same_names():
    """The names under TYPE_CHECKING, those loaded lazily and `__all__` are one list."""
    tree = ast.parse(Path(finetti.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    told = {
        (alias.name, node.module) for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    lazy = set(finetti._MODULE_OF.items()) | {("datasets", "finetti")}
    assert told == lazy
    assert {name for name, _ in told} | {"__version__"} == set(finetti.__all__)
    assert list(finetti.__all__) == sorted(finetti.__all__)
