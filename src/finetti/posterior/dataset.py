"""Draws as xarray and ArviZ see them: variables with named dimensions."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from finetti.posterior.draws import CHAINS, Draws

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["arviz_data", "posterior_dataset"]

# the pointwise log-likelihood is made unasked up to this many values (80 MB)
MOST_POINTWISE = 10_000_000


def posterior_dataset(draws: Draws) -> xr.Dataset:
    """Dataset with dimensions chain, draw and one per variable; labels as in `Fit.summary`."""
    import xarray as xr

    inference = draws.inference
    design, hyper = inference.bound.design, draws.hyper()
    per_chain = draws.n // CHAINS
    variables: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    coords: dict[str, Any] = {"chain": np.arange(CHAINS), "draw": np.arange(per_chain)}

    # every variable's name is taken, so that no dimension may carry it
    names = [f.name for f in design.factors]
    taken = {"chain", "draw", "coefficient", "beta", "sigma"} | {f"{v}_{n}" for v in ("sd", "cor", "u") for n in names}

    def dimension(name: str) -> str:
        """A free name: the group's own, unless a variable or another dimension has it."""
        while name in taken:
            name += "_"
        taken.add(name)
        return name

    levels = {name: dimension(name) for name in names}

    def add(name: str, values: np.ndarray, dims: tuple[str, ...]) -> None:
        shape = (CHAINS, per_chain, *values.shape[1:])
        variables[name] = (("chain", "draw", *dims), values.reshape(shape))

    if design.columns:
        coords["coefficient"] = list(design.columns)
        add("beta", draws.beta(), ("coefficient",))
    small = draws.small_factors()
    for spec, f in zip(inference.coordinates.factors, design.factors, strict=True):
        name, dim = f.name, dimension(f"{f.name}_coefficient")
        coords[dim] = list(f.coefficients)
        if spec.modelled:
            add(f"sd_{name}", np.stack([hyper[f"sd_{name}[{c}]"] for c in f.coefficients], axis=1), (dim,))
            pairs = [label for label in spec.labels() if label.startswith(f"cor_{name}[")]
            if pairs:
                pair = dimension(f"{name}_pair")
                coords[pair] = [label[len(f"cor_{name}[") : -1] for label in pairs]
                add(f"cor_{name}", np.stack([hyper[label] for label in pairs], axis=1), (pair,))
        if name in small:
            coords[levels[name]] = list(f.levels)
            add(f"u_{name}", draws.u(name), (levels[name], dim))
    if "sigma" in hyper:
        add("sigma", hyper["sigma"], ())
    left_out = [f.name for f in design.factors if f.name not in small]
    attrs = {
        "inference_library": "finetti",
        "inference_library_version": version("finetti"),
        "formula": str(inference.bound.model.formula),
    }
    if inference.sampled is not None:
        attrs["sampling_method"] = f"NUTS by nutpie, {inference.method}"
    if left_out:
        attrs["left_out"] = ", ".join(f"u_{name}" for name in left_out)
    return xr.Dataset(
        {k: xr.Variable(dims, values) for k, (dims, values) in variables.items()}, coords=coords, attrs=attrs
    )


def arviz_data(draws: Draws, dataset: xr.Dataset, log_likelihood: bool | None) -> Any:
    """What the installed ArviZ uses: `InferenceData` below 1.0, a `DataTree` from then on."""
    import xarray as xr

    design = draws.inference.bound.design
    response = draws.inference.bound.model.formula.response.expression.replace("/", " over ")
    wanted = draws.n * design.y.size <= MOST_POINTWISE if log_likelihood is None else log_likelihood
    obs = {"observation": design.rows}
    groups = {
        "posterior": dataset,
        "observed_data": xr.Dataset({response: (("observation",), design.y)}, coords=obs),
    }
    if wanted:
        values = draws.log_likelihood().reshape(CHAINS, -1, design.y.size)
        groups["log_likelihood"] = xr.Dataset(
            {response: (("chain", "draw", "observation"), values)},
            coords={**obs, "chain": dataset.chain, "draw": dataset.draw},
        )
    import arviz as az

    if hasattr(az, "InferenceData"):
        return az.InferenceData(**groups)
    return xr.DataTree.from_dict(groups)
