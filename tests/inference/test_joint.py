"""The joint density against densities written down with dense matrices, and against the exact path.

The oracle works in natural parameters, and every Jacobian comes from finite differences: a Jacobian that the kernel
forgot would show as a difference that varies from point to point. Nothing is compared but differences between points,
since the kernel leaves constants out.
"""

from __future__ import annotations

import numpy as np
import pytest

import finetti as fi
from finetti.data.bound import bind
from finetti.inference import joint_kernels as kernels
from finetti.inference.gaussian import GaussianInner
from finetti.inference.joint import Joint, build_joint
from finetti.inference.precondition import preconditioned
from finetti.inference.target import GaussianTarget
from finetti.model.priors import sd_logpdf
from tests.inference.cases import bound_of, case, every_feature, hyper_priors
from tests.oracle_problems import random_problem
from tests.oracles import Problem, dense_conditional, log_prior_hyper

Array = np.ndarray

CASES = list(enumerate(every_feature()))


def normal_logpdf(x: Array, cov: Array) -> float:
    sign, logdet = np.linalg.slogdet(cov)
    assert sign > 0
    return -0.5 * (len(x) * np.log(2 * np.pi) + logdet + float(x @ np.linalg.solve(cov, x)))


def joint_of(inner: GaussianInner, theta: Array, ready: bool = True) -> Joint:
    joint = build_joint(inner, theta)
    rng = np.random.default_rng(1)
    root = rng.normal(size=(theta.size, theta.size)) * 0.1 + np.eye(theta.size)
    return preconditioned(joint, 0.04 * root @ root.T) if ready else joint


def slope(f, x: Array, h: float = 1e-5) -> Array:  # type: ignore[no-untyped-def]
    """Jacobian (outputs, inputs) by central differences of the fourth order."""
    out = []
    for e in np.eye(x.size):
        near, far = f(x + h * e) - f(x - h * e), f(x + 2 * h * e) - f(x - 2 * h * e)
        out.append((8.0 * near - far) / (12.0 * h))
    return np.array(out).T


def natural_vector(inner: GaussianInner, theta: Array) -> Array:
    """Every free hyperparameter in natural units: as many as theta has coordinates."""
    held = {
        f"sd_{f.name}[{c}]"
        for f in inner.hyper.factors
        for c, at in zip(f.coefficients, f.sd_at, strict=True)
        if at < 0
    }
    held |= {"sigma"} if inner.hyper.sigma_at < 0 else set()
    blocks = [f for f in inner.hyper.factors for b in f.blocks if not b.size]
    held |= {label for f in blocks for label in f.labels() if label.startswith("cor_")}
    values = [v for label, v in inner.hyper.natural(theta[None]).items() if label not in held]
    # correlations between blocks of one factor are not parameters, and natural() leaves them out
    values += [inner.hyper.given_values(theta[None])[:, k] for k, (_, at, _) in enumerate(inner.hyper.given) if at >= 0]
    out = np.concatenate(values) if values else np.zeros(0)
    assert out.size == theta.size
    return out


def hyper_of(inner: GaussianInner, theta: Array) -> dict[str, float]:
    out = {label: float(v[0]) for label, v in inner.hyper.natural(theta[None]).items()}
    given = inner.hyper.given_values(theta[None])[0]
    return out | {label: float(given[k]) for k, (label, at, _) in enumerate(inner.hyper.given) if at >= 0}


def log_det(J: Array) -> float:
    if J.size == 0:
        return 0.0
    sign, value = np.linalg.slogdet(J)
    assert sign != 0
    return float(value)


def coefficients(joint: Joint, z: Array) -> tuple[Array, dict[str, float]]:
    """theta, and beta and u by label."""
    theta, beta, u = joint.parameters(joint.decode(z[None]))
    design = joint.inner.bound.design
    out = {f"beta[{c}]": float(beta[0, k]) for k, c in enumerate(design.columns)}
    for f in design.factors:
        out |= {
            f"u_{f.name}[{level}, {c}]": float(u[f.name][0, j, k])
            for j, level in enumerate(f.levels)
            for k, c in enumerate(f.coefficients)
        }
    return theta[0], out


def oracle(problem: Problem, inner: GaussianInner, theta: Array, coef: dict[str, float], priors: dict) -> float:  # type: ignore[type-arg]
    """log p(y, b, u, theta) in the coordinates theta, term by term."""
    hyper = hyper_of(inner, theta)
    kept = problem.kept()
    beta = np.array([coef[f"beta[{problem.columns[k]}]"] for k in kept])
    eta = problem.X[:, kept] @ beta + (0.0 if problem.offset is None else problem.offset)
    alpha = beta.copy()
    if problem.centred and len(kept) and kept[0] == 0:
        alpha[0] += problem.X[:, kept[1:]].mean(axis=0) @ beta[1:]
    total = 0.0
    for a, k in zip(alpha, kept, strict=True):
        if problem.beta[k].name == "normal":  # a student_t is among the hyperpriors
            total += problem.beta[k].logpdf(a)
    for f in problem.factors:
        u = np.array([[coef[f"u_{f.name}[{level}, {c}]"] for c in f.coefficients] for level in f.levels])
        eta = eta + np.sum(f.Z * u[f.index], axis=1)
        if f.varying:
            total += sum(normal_logpdf(row, f.covariance(hyper)) for row in u)
    total += normal_logpdf(problem.y - eta, np.diag(problem.error_variance(hyper)))
    total += log_prior_hyper(problem, hyper, priors)
    return total + log_det(slope(lambda t: natural_vector(inner, t), theta))


def differences(values: list[float]) -> Array:
    return np.array(values) - np.mean(values)


@pytest.mark.parametrize(("seed", "features"), CASES, ids=["-".join(f.values()) for _, f in CASES])
def test_density_is_the_product_of_its_parts(seed: int, features: dict[str, str]) -> None:
    rng = np.random.default_rng(1000 + seed)
    problem, _, inner, theta = case(seed, **features)
    priors = hyper_priors(problem, rng)
    inner = GaussianInner.build(bound_of(problem, priors))
    theta = np.clip(theta[0], -1.5, 1.5)
    joint = joint_of(inner, theta)
    if joint.dim == 0:
        return
    points = rng.normal(size=(4, joint.dim)) * 0.7
    got, want, marginal = [], [], []
    sampled = [f"u_{f.name}[" for f in problem.factors if f.kind != "complete"]
    for z in points:
        at, coef = coefficients(joint, z)
        J = slope(lambda x: joint.decode(x[None])[0], z)
        got.append(joint(z)[0] - log_det(J))
        want.append(oracle(problem, inner, at, coef, priors))
        # what is left of the joint after the exact conditional of the coefficients is the exact marginal
        if not integrated(problem) or not (len(problem.kept()) or problem.factors):
            continue
        given = dense_conditional(problem, hyper_of(inner, at))
        free = [
            label
            for label, sd in zip(given.labels, np.sqrt(np.maximum(np.diag(given.cov), 0.0)), strict=True)
            if any(label.startswith(s) for s in sampled) or (label.startswith("beta[") and sd > 1e-9)
        ]
        mean, cov = given.block(tuple(free))
        rest = normal_logpdf(np.array([coef[label] for label in free]) - mean, cov) if free else 0.0
        exact = inner.log_marginal(at[None])[0] + inner.hyper.log_prior(at[None])[0]
        marginal.append(got[-1] - rest - float(exact))
    scale = np.abs(np.array(want) - np.mean(want)).max() + 1.0
    np.testing.assert_allclose(differences(got), differences(want), atol=2e-7 * scale)
    if marginal:
        np.testing.assert_allclose(differences(marginal), 0.0, atol=2e-7 * scale)


def integrated(problem: Problem) -> bool:
    """Whether every coefficient that varies at fixed theta is one that the dense conditional integrates alone."""
    return all(problem.beta[k].name in ("normal", "flat") for k in problem.kept())


@pytest.mark.parametrize(("seed", "features"), CASES[::3], ids=["-".join(f.values()) for _, f in CASES[::3]])
def test_gradient_is_that_of_the_density(seed: int, features: dict[str, str]) -> None:
    _, _, inner, theta = case(seed, **features)
    for ready in (False, True):
        joint = joint_of(inner, np.clip(theta[0], -1.5, 1.5), ready)
        z = np.random.default_rng(seed).normal(size=joint.dim)
        value, gradient = joint(z)
        numeric = slope(lambda x: np.array([joint(x)[0]]), z)[0]  # noqa: B023
        assert np.isfinite(value)
        np.testing.assert_allclose(gradient, numeric, atol=2e-7 * (1.0 + np.abs(numeric).max()))


def test_at_the_centre_the_coordinates_are_standard_normal() -> None:
    """The Hessian in everything but theta is the identity, for crossed factors with slopes, too."""
    _, _, inner, theta = case(3, layout="mixed", q=2, errors="sigma", pooling="partial", intercept="normal")
    joint = joint_of(inner, np.clip(theta[0], -1.5, 1.5))
    d = inner.hyper.d
    H = -slope(lambda x: joint(x)[1], np.zeros(joint.dim))[d:, d:]
    np.testing.assert_allclose(H, np.eye(joint.dim - d), atol=1e-5)
    np.testing.assert_allclose(joint(np.zeros(joint.dim))[1][d:], 0.0, atol=1e-6)


@pytest.mark.parametrize(
    "priors",
    [
        {"sd_g[Intercept]": fi.fixed(0.0)},
        {"sd_g[x]": fi.fixed(0.7), "sigma": fi.fixed(1.3)},
        {"cor_g": fi.fixed(-0.6)},
        {"cor_g": fi.uniform(-1, 1), "sd": fi.flat(), "sigma": fi.uniform(0.1, 9.0)},
        {"beta": fi.flat()},
        {"beta[x]": fi.fixed(1.0), "Intercept": fi.student_t(3, 1, 2)},
    ],
    ids=str,
)
def test_held_and_improper_parameters(priors: dict) -> None:  # type: ignore[type-arg]
    """Against the exact marginal and the exact conditional mean: the joint's ridge is where the exact path says."""
    rng = np.random.default_rng(5)
    data = {"y": rng.normal(size=40) + 3, "x": rng.normal(size=40), "g": [f"g{j % 6}" for j in range(40)]}
    bound = fi.Model("y ~ 1 + x + (1 + x | g)", priors=priors).bind(data)
    inner = GaussianInner.build(bound)
    theta = GaussianTarget(inner).starts()[0]
    joint = joint_of(inner, theta)
    d = inner.hyper.d
    # the joint is Gaussian in the coefficients: its top and its curvature there give their integral, the marginal
    values = []
    for step in (0.0, 0.3, -0.4):
        centre = joint_of(inner, theta + step)
        H = -slope(lambda x: centre(x)[1], np.zeros(centre.dim))[d:, d:]  # noqa: B023
        # z is x in units of W, whose determinant is a constant of each density
        value = centre(np.zeros(centre.dim))[0] + log_det(centre.arrays["W"][d:, d:])
        exact = inner.log_marginal((theta + step)[None])[0] + inner.hyper.log_prior((theta + step)[None])[0]
        values.append(value - 0.5 * log_det(H) - float(exact))
    np.testing.assert_allclose(differences(values), 0.0, atol=1e-6)
    assert kernels.EXOTIC not in joint.arrays["code"]


def test_a_point_without_density_is_not_a_number() -> None:
    _, _, inner, theta = case(1, layout="one", errors="sigma", pooling="partial", intercept="normal")
    joint = joint_of(inner, theta[0])
    value, gradient = joint(np.full(joint.dim, 1e6))
    assert np.isnan(value) and np.all(np.isnan(gradient))


def test_problem_of_every_kind_is_covered() -> None:
    """The random problems do contain what the docstring promises."""
    rng = np.random.default_rng(0)
    problem, _ = random_problem(rng, layout="mixed")
    assert len(problem.factors) == 3
    kinds = {(f["errors"], f["pooling"], f["intercept"]) for _, f in CASES}
    assert {k[0] for k in kinds} == {"sigma", "weights", "se", "se_sigma"}


def test_known_correlated_errors() -> None:
    """A hidden term stands for them: with it integrated out, the exact marginal."""
    rng = np.random.default_rng(8)
    data = {"y": rng.normal(size=12), "s": rng.uniform(0.5, 1.5, 12), "g": [f"g{j // 2}" for j in range(12)]}
    blocks = tuple(
        (at, np.outer(data["s"][at], data["s"][at]) * (0.4 + 0.6 * np.eye(3))) for at in (np.arange(3), np.arange(6, 9))
    )
    bound = bind(fi.Model("y | se(s) ~ 1 + (1 | g)"), data, error_covariance=blocks)
    inner = GaussianInner.build(bound)
    values = []
    for theta in (np.array([-0.5]), np.array([0.4])):
        joint = joint_of(inner, theta)
        assert joint.dim == 1 + 1 + 6 + 2
        H = -slope(lambda x: joint(x)[1], np.zeros(joint.dim))[1:, 1:]  # noqa: B023
        # not quite at the top: the hidden coefficients start at zero
        g = joint(np.zeros(joint.dim))[1][1:]
        top = joint(np.zeros(joint.dim))[0] + 0.5 * float(g @ np.linalg.solve(H, g))
        exact = inner.log_marginal(theta[None])[0] + inner.hyper.log_prior(theta[None])[0]
        values.append(top + log_det(joint.arrays["W"][1:, 1:]) - 0.5 * log_det(H) - float(exact))
    np.testing.assert_allclose(differences(values), 0.0, atol=1e-7)


@pytest.mark.parametrize("prior", [fi.jeffreys(), fi.dumouchel(), fi.uniform_shrinkage()], ids=str)
def test_priors_that_the_kernel_does_not_know(prior: object) -> None:
    data = fi.datasets.load("eight_schools")
    bound = fi.Model("effect | se(se) ~ 1 + (1 | school)", priors={"sd": prior}).bind(data)
    inner = GaussianInner.build(bound)
    joint = joint_of(inner, np.array([1.5]))
    assert not joint.on_tape
    z = np.random.default_rng(0).normal(size=joint.dim)
    numeric = slope(lambda x: np.array([joint(x)[0]]), z)[0]
    np.testing.assert_allclose(joint(z)[1], numeric, atol=1e-7)
    known = joint_of(
        GaussianInner.build(fi.Model("effect | se(se) ~ 1 + (1 | school)", priors={"sd": fi.flat()}).bind(data)),
        np.array([1.5]),
    )
    gaps = []
    for step in (0.0, 1.0):
        at = z + step * np.eye(joint.dim)[0]
        tau = np.exp(joint.decode(at[None])[0, 0])
        gaps.append(joint(at)[0] - known(at)[0] - float(sd_logpdf(bound.priors["sd_school[Intercept]"], tau)))
    assert abs(gaps[1] - gaps[0]) < 1e-9
