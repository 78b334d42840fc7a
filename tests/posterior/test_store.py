"""A saved fit says the same on loading, whatever it was fitted to; a file that is none is refused in one sentence."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import polars as pl
import pytest
import xarray as xr

import finetti as fi
from finetti.inference.infer import METHODS
from finetti.model.densities import HalfNormal
from finetti.posterior import store
from finetti.posterior.store_codec import classes, decode, encode

N = 40
WEIRD = ["1", "10", "2", "日本", "a/b", "Ünï\n", "", "x\0", " sp ", "z" * 70]


def table(**more: Any) -> pd.DataFrame:
    rng = np.random.default_rng(7)
    i = np.arange(N)
    frame = pd.DataFrame({"y": rng.normal(size=N) + (i % 10) / 3, "x": rng.normal(size=N), "g": i % 10, "h": i % 7 < 3})
    return frame.assign(**more)


def again(fit: fi.Fit, folder: Path) -> fi.Fit:
    return fi.load(fit.save(folder / "fit.nc"))


def assert_same(a: fi.Fit, b: fi.Fit, new: Any = None, kind: str = "known") -> None:
    """Every table, draw and sentence, bit by bit."""
    assert_alike(a, b, new, kind)
    equal = pd.testing.assert_frame_equal
    equal(a.predict(kind="response"), b.predict(kind="response"), check_exact=True)
    for group in a.group_names:
        one, other = a.compare_groups(group), b.compare_groups(group)
        equal(one.pairs, other.pairs, check_exact=True)
        equal(one.ranks, other.ranks, check_exact=True)
    assert str(a) == str(b) and repr(a) == repr(b)
    assert a.diagnostics.lines() == b.diagnostics.lines()
    assert a.posterior.equals(b.posterior)
    assert said(a.evidence) == said(b.evidence)


def assert_alike(a: fi.Fit, b: fi.Fit, new: Any = None, kind: str = "known") -> None:
    """What depends on the data: tables, predictions, the model."""
    equal = pd.testing.assert_frame_equal
    equal(a.summary((0.1, 0.5)), b.summary((0.1, 0.5)), check_exact=True)
    equal(a.priors, b.priors)
    for group in a.group_names:
        equal(a.groups(group), b.groups(group), check_exact=True)
    if new is not None:
        equal(a.predict(new, groups=kind), b.predict(new, groups=kind), check_exact=True)
    for what in ("formula", "n_rows", "n_draws", "seed", "group_names"):
        assert getattr(a, what) == getattr(b, what)
    assert a.model.model == b.model.model
    assert dict(a.model.sources) == dict(b.model.sources)
    design, other = a.model.design, b.model.design
    assert design.n_dropped == other.n_dropped and design.warnings == other.warnings
    np.testing.assert_array_equal(design.rows, other.rows)
    np.testing.assert_array_equal(design.y, other.y)


def said(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except fi.FinettiError as error:
        return str(error)


MODELS: dict[str, Callable[[], fi.Fit]] = {
    "correlated slopes": lambda: fi.fit("y ~ 1 + x + (1 + x | g)", table()),
    "crossed, given priors": lambda: fi.fit(
        "y ~ 1 + x + (1 | g) + (1 | h)",
        table(),
        priors={"beta[x]": fi.student_t(4, 0, 1), "Intercept": fi.normal(0, 0.1), "sd": fi.uniform(0, 5),
                "sigma": fi.inverse_gamma(2, 1)},
    ),
    "nested, two kinds of pooling": lambda: fi.fit(
        "y ~ 1 + (1 | k/h)", table(k=np.arange(N) % 3), pooling={"k": "empirical"}
    ),
    "empirical": lambda: fi.fit("y ~ 1 + x + (1 + x || g)", table(), pooling="empirical"),
    "unpooled": lambda: fi.fit("y ~ 1 + x + (1 | g)", table(), pooling="none"),
    "completely pooled": lambda: fi.fit("y ~ 1 + x + (1 | g)", table(), pooling="complete"),
    "held": lambda: fi.fit("y ~ 1 + (1 | g)", table(), priors={"sd": fi.fixed(0.3), "sigma": fi.fixed(1)}),
    "no groups": lambda: fi.fit("y ~ 1 + x", table(), draws=400, seed=12),
    "functions": lambda: fi.fit("I(log(y * y) + 1) | weights(exp(x)) ~ 1 + poly(x, 2) + offset(x) + (1 | g)", table()),
    "known errors": lambda: fi.fit("y | se(exp(x), sigma=True) ~ 1 + C(h) + (1 | g)", table()),
    "infinite prior": lambda: fi.fit("y ~ 1 + (1 | g)", table(), priors={"sd": fi.uniform(), "beta": fi.flat()}),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_models(name: str, tmp_path: Path) -> None:
    fit = MODELS[name]()
    new = table().head(3).assign(k=[0, 1, 2], h=[True, True, True])
    assert_same(fit, again(fit, tmp_path), new)


def test_a_failed_fit_still_says_so(tmp_path: Path) -> None:
    from finetti.inference.hyper import Settings
    from finetti.inference.infer import infer

    bound = fi.Model("y ~ 1 + (1 | g)").bind(table())
    hasty = fi.Fit(infer(bound, "exact", settings=Settings(mean_error=1e-9, max_nodes=2048)), 400, 0)
    assert not hasty.diagnostics.ok
    assert again(hasty, tmp_path).diagnostics.lines() == hasty.diagnostics.lines()


COLUMNS: dict[str, Callable[[], Any]] = {
    "weird names": lambda: np.array(WEIRD)[np.arange(N) % 10],
    "integers": lambda: np.arange(N, dtype=np.int16) % 10,
    "floats": lambda: (np.arange(N) % 10) / 2,
    "decimals": lambda: [Decimal(i % 10) / 4 for i in range(N)],
    "huge integers": lambda: [2**70 + i % 10 for i in range(N)],
    "unsigned": lambda: np.array([2**63 + i % 10 for i in range(N)], dtype=np.uint64),
    "mixed numbers": lambda: pd.Series([i % 10 if i % 2 else float(i % 10) for i in range(N)], dtype=object),
    "time stamps": lambda: pd.to_datetime("2020-01-01") + pd.to_timedelta(np.arange(N) % 10, "D"),
    "times of a zone": lambda: pd.to_datetime("2020-01-01", utc=True) + pd.to_timedelta(np.arange(N) % 10, "h"),
    "dates": lambda: [dt.date(2020, 1, 1 + i % 10) for i in range(N)],
    "booleans": lambda: np.arange(N) % 3 == 0,
    "nullable": lambda: pd.array(np.arange(N) % 9, dtype="Int64"),
    "categories": lambda: pd.Categorical(
        np.array(["10", "2", "é", "1"])[np.arange(N) % 4], categories=["2", "10", "unused", "1", "é"], ordered=True
    ),
    "categories of numbers": lambda: pd.Categorical((np.arange(N) % 4) * 1.5, categories=[4.5, 0.0, 3.0, 1.5]),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_kinds_of_groups(name: str, tmp_path: Path) -> None:
    data = table(g=COLUMNS[name]())
    fit = fi.fit("y ~ 1 + x + (1 | g)", data)
    loaded = again(fit, tmp_path)
    assert loaded.model.design.factors[0].levels == fit.model.design.factors[0].levels
    assert_alike(fit, loaded, data.head(4))


def test_kinds_of_covariates(tmp_path: Path) -> None:
    data = table(
        c=pd.Categorical(np.array(["b", "a", "c"])[np.arange(N) % 3], categories=["c", "b", "a"]),
        f=np.arange(N, dtype=np.float32) / 7,
        d=[Decimal(i * i) / 3 for i in range(N)],
        t=np.array(["u", "v"])[np.arange(N) % 2],
        k=pd.array(np.arange(N) // 9, dtype="Int8"),
    )
    fit = fi.fit("y ~ 1 + c + f + d + t + h + C(k) + (1 | g)", data)
    assert_alike(fit, again(fit, tmp_path), data.head(4))


def test_names_of_columns(tmp_path: Path) -> None:
    """Names that are ours in the file, or that NetCDF does not allow."""
    data = table(row=np.arange(N) % 4, levels=np.arange(N) % 5, position=np.arange(N) % 6)
    data["a/b"], data["odd name"], data["2é"] = data["h"], data["x"] ** 2, data["x"] ** 3
    data["t"], data["t_level"], data["level"] = (np.array(list("abcdef"))[np.arange(N) // k % 3] for k in (3, 5, 7))
    formula = "y ~ 1 + `a/b` + `odd name` + `2é` + t + t_level + level + (1 | row) + (1 | levels) + (1 | position)"
    fit = fi.fit(formula, data.iloc[::-1])
    assert_alike(fit, again(fit, tmp_path), data.head(4))


def test_rows_that_were_dropped(tmp_path: Path) -> None:
    data = table()
    data.loc[data.index % 11 == 0, "y"] = np.nan
    data["g"] = data["g"].astype(object).where(data.index % 7 != 2, None)
    fit = fi.fit("y ~ 1 + x + (1 | g)", data, missing="drop")
    assert fit.model.design.n_dropped > 5
    assert_alike(fit, again(fit, tmp_path), table().head(2))


def test_polars_and_new_groups(tmp_path: Path) -> None:
    data = pl.DataFrame({"y": table()["y"].to_numpy(), "g": [str(i % 12) for i in range(N)]})
    data = data.with_columns(pl.col("g").cast(pl.Enum([str(i) for i in (3, 2, 1, 0, *range(4, 12))])))
    fit = fi.fit("y ~ 1 + (1 | g)", data)
    assert fit.model.design.factors[0].levels[:2] == ("3", "2")
    assert_alike(fit, again(fit, tmp_path), pl.DataFrame({"g": ["new"]}), "new")


def test_later_changes_of_the_data_do_not_reach_the_file(tmp_path: Path) -> None:
    data = table()
    fit = fi.fit("y ~ 1 + x + (1 | g)", data)
    data.loc[:, "y"] = 0.0
    data.loc[3, "g"] = 99
    assert_alike(fit, again(fit, tmp_path))


def test_another_process_without_the_data(tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    table(g=[f"00{i % 8}" for i in range(N)]).to_csv(data, index=False)
    fit = fi.fit("y ~ 1 + x + (1 | g)", data)
    fit.save(tmp_path / "fit.nc")
    data.unlink()
    assert str(tmp_path).encode() not in (tmp_path / "fit.nc").read_bytes()
    code = (
        "import sys, finetti as fi; f = fi.load(sys.argv[1]); "
        "print(f.summary().to_json(double_precision=15), f.draws('u_g[003, Intercept]').sum().hex())"
    )
    run = [sys.executable, "-c", code, str(tmp_path / "fit.nc")]
    told = subprocess.run(run, capture_output=True, text=True, check=True, cwd=tmp_path).stdout.strip()
    expected = f"{fit.summary().to_json(double_precision=15)} {fit.draws('u_g[003, Intercept]').sum().hex()}"
    assert told == expected


def test_priors_stay_what_they_were(tmp_path: Path) -> None:
    """Defaults are stored as numbers, so that a finetti with other defaults would not change an old fit."""
    fit = fi.fit("y ~ 1 + x + (1 | g)", table())
    path = fit.save(tmp_path / "fit.nc")
    with h5py.File(path, "r+") as file:
        about = json.loads(file.attrs["fit"])
        (pair,) = (p for p in about["resolved_priors"]["mapping"] if p[0] == "sd_g[Intercept]")
        pair[1]["fields"]["scale"] = 123.0
        file.attrs["fit"] = json.dumps(about)
    assert fi.load(path).model.priors["sd_g[Intercept]"].scale == 123.0


def test_another_reader_sees_names(tmp_path: Path) -> None:
    data = fi.datasets.load("sleepstudy")
    data["Subject"] = "S" + data["Subject"].astype(str)
    fit = fi.fit("Reaction ~ 1 + Days + (1 + Days | Subject)", data)
    path = fit.save(tmp_path / "fit.nc")
    with xr.open_dataset(path, engine="h5netcdf") as file:
        assert file.attrs["formula"] == fit.formula
        assert file.attrs["finetti_version"] == fi.__version__
    with xr.open_dataset(path, group="data", engine="h5netcdf") as columns:
        np.testing.assert_array_equal(columns["Reaction"], fit.model.design.y)
        assert columns["Subject"].dims == ("row",)
        codes = columns["Subject"].to_numpy()
    with xr.open_dataset(path, group="data/levels/Subject", engine="h5netcdf") as levels:
        assert levels["name"].to_numpy()[codes].tolist() == data["Subject"].tolist()
    with xr.open_dataset(path, group="inference/hyper", engine="h5netcdf") as nodes:
        assert nodes["theta"].dims == ("node", "hyperparameter")
        assert nodes["hyperparameter"].to_numpy().tolist() == list(fit.inference.hyper.names)
        assert nodes["coefficient"].to_numpy().tolist() == ["Intercept", "Days"]
        np.testing.assert_array_equal(nodes["theta"], fit.inference.hyper.theta)
    assert path.stat().st_size < 3_000_000


def test_saving_over_a_file_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "fit.nc"
    path.write_text("precious")
    fit = fi.fit("y ~ 1 + (1 | g)", table())

    def fails(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(store, "_write", fails)
        with pytest.raises(fi.FinettiError, match="No space left"):
            fit.save(path)
    assert path.read_text() == "precious"
    assert os.listdir(tmp_path) == ["fit.nc"]
    link = tmp_path / "link.nc"
    link.symlink_to(path)
    assert fit.save(str(link)) == link
    assert link.is_symlink() and fi.load(path).summary().equals(fit.summary())
    assert sorted(os.listdir(tmp_path)) == ["fit.nc", "link.nc"]


def test_places_that_do_not_work(tmp_path: Path) -> None:
    fit = fi.fit("y ~ 1 + (1 | g)", table())
    for place, told in (
        (tmp_path, "is a directory"), (tmp_path / "no" / "fit.nc", "No such file"), ("", "not the name of a file"),
        (7, "not the name of a file"), ("a\0b", "not the name of a file"),
        (tmp_path / ("x" * 300), "cannot be written"),
    ):  # fmt: skip
        with pytest.raises(fi.FinettiError, match=told):
            fit.save(place)  # type: ignore[arg-type]
    for place, told in (
        (tmp_path, "is a directory"), (tmp_path / "no.nc", "there is no file"), (None, "not the name of a file"),
    ):  # fmt: skip
        with pytest.raises(fi.FinettiError, match=told):
            fi.load(place)  # type: ignore[arg-type]


def test_files_that_are_not_fits(tmp_path: Path) -> None:
    path = fi.fit("y ~ 1 + (1 | g)", table()).save(tmp_path / "fit.nc")
    whole = path.read_bytes()
    other = tmp_path / "other.nc"
    for content in (b"", b"y,g\n1,a\n", whole[:100], whole[: len(whole) // 2], whole[:-1], b"\x89HDF" + whole[4:900]):
        other.write_bytes(content)
        with pytest.raises(fi.FinettiError, match="cannot be read as a fit") as info:
            fi.load(other)
        assert "\n" not in str(info.value)
    xr.Dataset({"x": ("a", np.arange(3.0))}).to_netcdf(other, engine="h5netcdf")
    with pytest.raises(fi.FinettiError, match="not one that finetti wrote"):
        fi.load(other)
    xr.Dataset({"x": ("a", np.arange(3.0))}).to_netcdf(other, engine="scipy")
    with pytest.raises(fi.FinettiError, match="cannot be read as a fit"):
        fi.load(other)


def tampered(path: Path, change: Callable[[Any], None]) -> str:
    """What is said of the file after a change of its content."""
    copy = path.with_name("tampered.nc")
    copy.write_bytes(path.read_bytes())
    with h5py.File(copy, "r+") as file:
        change(file)
    with pytest.raises(fi.FinettiError) as info:
        fi.load(copy)
    return str(info.value)


def edit(attribute: str, group: str, change: Callable[[Any], None]) -> Callable[[Any], None]:
    def apply(file: Any) -> None:
        content = json.loads(file[group].attrs[attribute])
        change(content)
        file[group].attrs[attribute] = json.dumps(content)

    return apply


def test_files_that_were_tampered_with(tmp_path: Path) -> None:
    path = fi.fit("y ~ 1 + x + (1 | g)", table(), draws=400).save(tmp_path / "fit.nc")
    fit, content, theta = ("fit", "/"), ("content", "inference"), "inference/hyper/theta"
    for change, told in (
        (lambda f: f.attrs.update(finetti_format=99), "upgrade finetti"),
        (lambda f: f.pop("data"), "damaged"),
        (lambda f: f["data/y"].write_direct(np.zeros(N)), "cannot be read"),
        (lambda f: f["data/x"].write_direct(np.linspace(0, 1, N)), "fit the model again"),
        (lambda f: f[theta].write_direct(f[theta][...] + 0.5), "fit the model again"),
        (lambda f: f.attrs.update(fit="{"), "damaged"),
        (edit(*fit, lambda c: c.update(family="poisson")), "family"),
        (edit(*fit, lambda c: c.update(study="os", extra={})), "unknown study"),
        (edit(*fit, lambda c: c["resolved_priors"]["mapping"].pop()), "priors of other parameters"),
        (edit(*content, lambda c: c["hyper"].update({"class": "Popen"})), "Popen"),
        (edit(*content, lambda c: c["hyper"]["fields"].update(theta={"array": "../../etc"})), "damaged"),
        (edit(*content, lambda c: c["hyper"]["fields"].update(extra=1)), "damaged"),
    ):  # fmt: skip
        said_of_it = tampered(path, change)
        assert told in said_of_it and "tampered.nc" in said_of_it


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    """The formula of a file is text from a stranger."""
    path = fi.fit("y ~ 1 + x + (1 | g)", table(), draws=400).save(tmp_path / "fit.nc")
    mark = tmp_path / "executed"
    for evil in (
        f"y ~ 1 + I(open('{mark}', 'w')) + (1 | g)",
        f"y ~ 1 + __import__('pathlib').Path('{mark}').touch() + (1 | g)",
        "y ~ 1 + x.__class__.__mro__ + (1 | g)",
        f"I(np.save('{mark}', x)) ~ 1 + x + (1 | g)",
    ):
        tampered(path, lambda file, evil=evil: file.attrs.update(formula=evil))
    assert not mark.exists()
    for file in ("store.py", "store_codec.py", "store_columns.py"):
        source = Path(store.__file__).with_name(file).read_text(encoding="utf-8")
        assert "import pickle" not in source and "eval(" not in source.replace("_eval(", "")


def test_flipped_bytes_never_change_a_number(tmp_path: Path) -> None:
    fit = fi.fit("y ~ 1 + (1 | g)", table(), draws=400)
    whole = fit.save(tmp_path / "fit.nc").read_bytes()
    expected = fit.summary()
    rng = np.random.default_rng(3)
    refused = 0
    for _ in range(40):
        content = bytearray(whole)
        for at in rng.integers(2000, len(content), 3):
            content[at] ^= int(rng.integers(1, 256))
        (tmp_path / "flipped.nc").write_bytes(bytes(content))
        try:
            loaded = fi.load(tmp_path / "flipped.nc")
        except fi.FinettiError:
            refused += 1
        else:
            pd.testing.assert_frame_equal(loaded.summary(), expected, check_exact=True)
    assert refused > 20


def test_a_prior_of_your_own_is_refused(tmp_path: Path) -> None:
    class Mine(HalfNormal):
        pass

    fit = fi.fit("y ~ 1 + (1 | g)", table(), priors={"sd": Mine(2.0)})
    with pytest.raises(fi.FinettiError, match="of your own cannot"):
        fit.save(tmp_path / "fit.nc")
    assert not list(tmp_path.iterdir())


def test_codec_gives_back_what_it_got(tmp_path: Path) -> None:
    value = {
        "a": (1, 2.5, True, None, "é", float("-inf"), -0.0, [1, (2,)]),
        ("two", "keys"): np.arange(6, dtype=np.int16).reshape(2, 3),
        "flags": np.array([True, False]),
        "none": np.zeros((0, 2)),
        "prior": fi.uniform(0, np.inf),
    }
    import h5netcdf

    with h5netcdf.File(tmp_path / "x.nc", "w") as file:
        stored = json.loads(json.dumps(encode(value, file, path="v"), allow_nan=False))
    with h5py.File(tmp_path / "x.nc") as file:
        back = decode(stored, file)
    assert list(back) == list(value)
    assert back["a"] == value["a"] and str(back["a"]) == str(value["a"])
    for key in (("two", "keys"), "flags", "none"):
        assert back[key].dtype == value[key].dtype
        np.testing.assert_array_equal(back[key], value[key])
    assert back["prior"] == value["prior"]
    with h5netcdf.File(tmp_path / "y.nc", "w") as file, pytest.raises(fi.FinettiError, match="cannot be stored"):
        encode(object(), file)


def test_every_prior_can_be_stored() -> None:
    priors = [fi.normal(0, 1), fi.student_t(3, 0, 1), fi.half_normal(1), fi.half_cauchy(1), fi.half_t(3, 1),
              fi.exponential(1), fi.gamma(2, 1), fi.inverse_gamma(2, 1), fi.uniform(), fi.lkj(2), fi.beta(1, 2),
              fi.fixed(0), fi.flat()]  # fmt: skip
    for prior in priors:
        assert classes()[type(prior).__name__] is type(prior)
        assert decode(json.loads(json.dumps(encode(prior, None))), None) == prior


@pytest.mark.filterwarnings("ignore::finetti.errors.FinettiWarning")  # it may say that the chains are short
@pytest.mark.skipif("nuts" not in METHODS, reason="method='nuts' is not built yet")
def test_sampled_fits(tmp_path: Path) -> None:
    fit = fi.fit("y ~ 1 + x + (1 | g)", table(), method="nuts")
    assert_same(fit, again(fit, tmp_path), table().head(3))


def test_meta_comes_back_as_meta(tmp_path: Path) -> None:
    pytest.importorskip("finetti.studies.meta")
    schools = fi.datasets.load("eight_schools_unrounded")
    for more in (
        {},
        {"V": [np.array([[s**2, 0.0], [0.0, t**2]]) + 5.0 for s, t in schools["se"].to_numpy().reshape(4, 2)]},
    ):
        fit = fi.meta("effect", None if more else "se", schools, labels="school", priors={"sd": fi.dumouchel()}, **more)
        loaded = again(fit, tmp_path)
        assert type(loaded) is fi.Meta
        pd.testing.assert_frame_equal(loaded.overall(), fit.overall(), check_exact=True)
        pd.testing.assert_frame_equal(loaded.studies(), fit.studies(), check_exact=True)
        pd.testing.assert_frame_equal(loaded.groups("study"), fit.groups("study"), check_exact=True)
        assert str(loaded) == str(fit)
