"""The house of DESIGN section 3: imports point downwards only, and a walk of the syntax trees proves it.

Imports inside functions and under TYPE_CHECKING count like any other, and so does any text that names a
finetti module (`import_module("finetti.show.plots")`), wherever it stands outside a docstring. The checker is
itself tested: every rule is broken once in a small fake tree, and must be noticed.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[1] / "src" / "finetti"

LEVEL = {
    "errors": 0,
    "linalg": 1,
    "model": 2,
    "data": 3,
    "datasets": 3,
    "inference": 4,
    "posterior": 5,
    "studies": 6,
    "show": 7,
}
FRONT = {"__init__.py", "__main__.py"}  # the public names and `python -m finetti`: above everything
LOOK_UPWARD = {"posterior/views.py", "model/bind.py"}  # by name, through importlib, never by an import statement
INNER_STEPS = {"gaussian", "groups", "laplace"}
MOST_LINES = 500

MODULE_NAME = re.compile(r"finetti(\.[A-Za-z_]\w*)+(:\w+)?")


def violations(root: Path) -> list[str]:
    """Return every breach of the layering in the package at `root`, as "file:line: what is wrong"."""
    found = []
    for path in sorted(root.rglob("*.py")):
        file = path.relative_to(root).as_posix()
        text = path.read_text(encoding="utf-8")
        n_lines = len(text.splitlines())
        if n_lines > MOST_LINES:
            found.append(f"{file}:{n_lines}: has {n_lines} lines, at most {MOST_LINES} are allowed")
        if file in FRONT:
            continue
        if layer_of(file) not in LEVEL:
            found.append(f"{file}:1: belongs to no layer")
            continue
        tree = ast.parse(text, filename=str(path))
        found += [f"{file}:{line}: {what}" for line, what in sorted(set(file_violations(file, tree)))]
    return found


def layer_of(file: str) -> str:
    """Return the part of the house that a file belongs to, from its path below the package."""
    return file.split("/")[0].removesuffix(".py")


def file_violations(file: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield (line, what is wrong) for one file."""
    for line, module, names in import_statements(file, tree):
        for target in sorted({module, *(f"{module}.{name}" for name in names)}):
            yield from ((line, what) for what in wrong_target(file, target))
        for name in names:
            if module == "finetti" and name not in LEVEL and name != "__version__":
                yield line, f"imports {name!r} through the front door; import it from its own module"
    for line, target in module_texts(tree):
        if file not in LOOK_UPWARD:
            yield from ((line, what) for what in wrong_target(file, target))
    if file not in LOOK_UPWARD:
        yield from unreadable_imports(tree)
    yield from scipy_stats_attributes(tree)


def wrong_target(file: str, target: str) -> Iterator[str]:
    """Yield what is wrong with this file using that module."""
    here, parts = layer_of(file), target.split(".")
    if parts[0] == "formulaic" and here != "data":
        yield "uses formulaic, which only data/ may"
    if parts[:2] == ["scipy", "stats"]:
        yield "uses scipy.stats, which takes a second to import"
    if parts[0] != "finetti" or len(parts) < 2 or parts[1] not in LEVEL:
        return
    there = parts[1]
    if LEVEL[there] > LEVEL[here]:
        yield f"{here} looks upward to {target}"
    if there == "inference" and len(parts) > 2:
        own, other = inner_step(file.split("/")[1]) if here == "inference" else None, inner_step(parts[2])
        if own and other and own != other:
            yield f"inner step {own} uses inner step {other}; what they share moves down"
        if other and here != "inference":
            yield f"{here} knows the inner step {other}; it should call inference.infer"


def inner_step(name: str) -> str | None:
    """Return which inner step a module or package of inference/ is part of: gaussian_blocks.py is of gaussian."""
    stem = name.removesuffix(".py").split("_")[0]
    return stem if stem in INNER_STEPS else None


def import_statements(file: str, tree: ast.Module) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    """Yield (line, absolute module, imported names); relative imports are resolved from the file's place."""
    package = ["finetti", *file.split("/")[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name == "finetti":
                    yield node.lineno, "finetti", ("finetti",)
                else:
                    yield node.lineno, alias.name, ()
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield node.lineno, module, tuple(alias.name for alias in node.names)


def module_texts(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield (line, module) for every text, docstrings apart, that names a module which the rules are about."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            if MODULE_NAME.fullmatch(node.value):
                yield node.lineno, node.value.split(":")[0]
        elif isinstance(node, ast.JoinedStr) and node.values and isinstance(node.values[0], ast.Constant):
            start = re.match(r"finetti\.\w+(?=\.)", str(node.values[0].value))  # f"finetti.show.{name}"
            if start:
                yield node.lineno, start[0]
        elif isinstance(node, ast.Call) and is_dynamic_import(node):
            names = [str(given.value) for given in node.args[:1] if isinstance(given, ast.Constant)]
            yield from ((node.lineno, name) for name in names if not name.startswith("finetti."))


def is_dynamic_import(call: ast.Call) -> bool:
    """Return whether this is import_module(...) or __import__(...), however it was imported."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    return name in {"import_module", "__import__"}


def unreadable_imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the imports by text that cannot be read off the page: relative ones, and those put together."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and is_dynamic_import(node):
            given = node.args[0] if node.args else None
            if isinstance(given, ast.Constant) and not str(given.value).startswith("."):
                continue
            if isinstance(given, ast.JoinedStr) and any(True for _ in module_texts(ast.Module([ast.Expr(given)], []))):
                continue
            yield node.lineno, "imports a module whose absolute name does not stand in the call"


def scipy_stats_attributes(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the uses of `scipy.stats` through the name of scipy itself, which imports it on first use."""
    scipy = {
        alias.asname or "scipy"
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name == "scipy" or (alias.name.startswith("scipy.") and not alias.asname)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "stats" and getattr(node.value, "id", None) in scipy:
            yield node.lineno, "uses scipy.stats, which takes a second to import"


def test_finetti_keeps_its_layers():
    assert SRC.is_dir()
    assert violations(SRC) == []


HOUSE = {
    "__init__.py": 'from finetti.show.cli import main\nX = {"fit": "finetti.posterior.api"}\n',
    "__main__.py": "from finetti.show.cli import main\n",
    "errors.py": "class FinettiError(ValueError): ...\n",
    "linalg/__init__.py": "from finetti.errors import FinettiError\n",
    "model/bind.py": 'import importlib\n\ndef bind():\n    return importlib.import_module("finetti.data.bound")\n',
    "model/model.py": '"""finetti.data fills what this leaves open."""\nfrom . import bind\nfrom .bind import bind\n',
    "data/design.py": "import formulaic\nfrom ..model.model import bind\nimport finetti.datasets\n",
    "datasets/__init__.py": "from finetti.errors import FinettiError\n",
    "inference/gaussian/core.py": "from . import kernels\nfrom .. import hyper\nfrom ...linalg import blocks\n",
    "inference/gaussian_weights.py": "from finetti.inference.gaussian import core\n",
    "inference/infer.py": "from finetti.inference.gaussian import core\nfrom . import groups, laplace\n",
    "posterior/views.py": 'import importlib\nT = {"plot": "finetti.show.plots"}\nimportlib.import_module(T["plot"])\n',
    "posterior/api.py": "from finetti import __version__\nfrom finetti.inference.infer import infer\n",
    "show/cli.py": "def main():\n    from finetti.posterior.api import fit\n",
}


@pytest.fixture
def house(tmp_path):
    """A small tree that keeps every rule, and a function that plants one more file and returns the violations."""

    def write(file: str, text: str) -> list[str]:
        path = tmp_path / "finetti" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return violations(tmp_path / "finetti")

    for file, text in HOUSE.items():
        write(file, text)
    return write


def test_a_sound_house_has_no_violations(house):
    assert house("show/__init__.py", "") == []


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        # upward, in every way of writing an import
        ("model/x.py", "import finetti.data.design", "model looks upward to finetti.data.design"),
        ("model/x.py", "import finetti.data.design as d", "model looks upward"),
        ("model/x.py", "from finetti.data import design", "model looks upward"),
        ("model/x.py", "from finetti import data", "model looks upward to finetti.data"),
        ("model/x.py", "from finetti import datasets", "model looks upward to finetti.datasets"),
        ("model/x.py", "from .. import show", "model looks upward to finetti.show"),
        ("model/deep/x.py", "from ...posterior import fit", "model looks upward to finetti.posterior"),
        ("model/__init__.py", "from ..inference.hyper import z", "model looks upward to finetti.inference.hyper"),
        ("errors.py", "from .linalg import blocks", "errors looks upward to finetti.linalg"),
        ("linalg/x.py", "def f():\n    from finetti.model import priors", "linalg looks upward"),
        ("data/x.py", "class A:\n    def f(self):\n        import finetti.inference.hyper", "data looks upward"),
        ("datasets/x.py", "from finetti.posterior.api import fit", "datasets looks upward"),
        ("inference/x.py", "try:\n    import finetti.posterior.fit\nexcept ImportError: ...", "inference looks upward"),
        ("posterior/x.py", "from finetti.studies import meta", "posterior looks upward"),
        ("studies/x.py", "import finetti.show.plots", "studies looks upward"),
        (
            "data/x.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from finetti.posterior.fit import Fit",
            "data looks upward to finetti.posterior.fit",
        ),
        # upward, by name
        ("model/x.py", 'from importlib import import_module as m\nm("finetti.data.bound")', "model looks upward"),
        ("data/x.py", 'import importlib\nimportlib.import_module("finetti.show.plots")', "data looks upward"),
        ("data/x.py", '__import__("finetti.show")', "data looks upward"),
        ("data/x.py", 'NAME = "finetti.show.plots:shrinkage"', "data looks upward to finetti.show.plots"),
        ("data/x.py", 'import sys\nsys.modules["finetti.inference"]', "data looks upward"),
        ("data/x.py", 'import_module(f"finetti.show.{name}")', "data looks upward to finetti.show"),
        ("data/x.py", 'import_module("..show", __package__)', "absolute name"),
        ("data/x.py", "import_module(name)", "absolute name"),
        ("data/x.py", 'import_module(f"finetti.{part}")', "absolute name"),
        ("data/x.py", 'import_module("finetti." + part)', "absolute name"),
        # the two files that may look upward do so by name only
        ("model/bind.py", "from finetti.data.bound import bind", "model looks upward"),
        ("posterior/views.py", "def f():\n    from finetti.show import plots", "posterior looks upward"),
        ("posterior/deep/views.py", 'X = "finetti.show.plots"', "posterior looks upward"),
        # the front door from inside
        ("data/x.py", "import finetti", "front door"),
        ("show/x.py", "import finetti as fi", "front door"),
        ("show/x.py", "from finetti import fit", "front door"),
        ("show/x.py", "from .. import Model", "front door"),
        ("show/x.py", "from finetti import *", "front door"),
        # inner steps
        ("inference/laplace.py", "from finetti.inference import gaussian", "laplace uses inner step gaussian"),
        ("inference/laplace.py", "from .groups import rule", "inner step laplace uses inner step groups"),
        ("inference/groups/a.py", "from ..gaussian.core import f", "inner step groups uses inner step gaussian"),
        ("inference/groups/a.py", "from .. import laplace", "inner step groups uses inner step laplace"),
        ("inference/gaussian_x.py", "from .groups import f", "inner step gaussian uses inner step groups"),
        ("inference/gaussian.py", 'import_module("finetti.inference.groups")', "inner step gaussian uses"),
        ("posterior/x.py", "from finetti.inference.gaussian import core", "posterior knows the inner step gaussian"),
        ("studies/x.py", "from finetti.inference import groups", "studies knows the inner step groups"),
        # third parties
        ("model/x.py", "import formulaic", "only data/ may"),
        ("posterior/x.py", "def f():\n    from formulaic.parser import x", "only data/ may"),
        ("datasets/x.py", "import formulaic", "only data/ may"),
        ("model/x.py", 'import_module("formulaic")', "only data/ may"),
        ("model/x.py", "import scipy.stats", "scipy.stats"),
        ("model/x.py", "from scipy import special, stats", "scipy.stats"),
        ("data/x.py", "def f():\n    from scipy.stats import qmc", "scipy.stats"),
        ("data/x.py", 'import_module("scipy.stats")', "scipy.stats"),
        ("data/x.py", "import scipy\nscipy.stats.norm", "scipy.stats"),
        ("data/x.py", "import scipy as sp\nsp.stats.norm", "scipy.stats"),
        ("data/x.py", "import scipy.special\nscipy.stats.norm", "scipy.stats"),
        # places and sizes
        ("utils.py", "", "belongs to no layer"),
        ("helpers/x.py", "", "belongs to no layer"),
        ("data/x.py", "a = 1\n" * 501, "has 501 lines"),
    ],
)
def test_a_planted_violation_is_found(house, file, text, expected):
    found = house(file, text)
    assert found
    assert all(line.startswith(f"{file}:") for line in found)
    assert any(expected in line for line in found)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("data/x.py", '"""See finetti.show.plots."""\ndef f():\n    """finetti.show"""\n'),
        ("data/x.py", 'MESSAGE = "finetti.show is not here"'),
        ("data/x.py", "a = 1\n" * 500),
        ("data/x.py", 'import importlib\nimportlib.import_module("formulaic.parser")'),
        ("data/x.py", "from scipy.special import stdtr\nfit.stats"),
        ("posterior/x.py", "import finetti.posterior.views\nfrom finetti.inference import infer"),
        ("show/x.py", "from finetti import __version__, posterior"),
        ("inference/nuts.py", 'import_module(f"finetti.linalg.{name}")'),
    ],
)
def test_what_is_allowed_is_left_alone(house, file, text):
    assert house(file, text) == []
