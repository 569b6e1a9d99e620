"""Tables and pictures of a sweep, from memory and from a store alike."""

from __future__ import annotations

import dataclasses
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prominence_executor import Labelled, Sweep, cli, open_sweep, sweep

Pair = namedtuple("Pair", "first second")


@dataclasses.dataclass
class Run:
    loss: float
    trace: Any
    inner: dict[str, Any]


def simulate(energy: float, gamma: float, seed: int = 0) -> dict[str, Any]:
    if energy == 2 and gamma == 0.2:
        raise ValueError("no such\nenergy")
    return {"loss": energy * gamma, "trace": np.arange(3) * energy, "kind": "good", "seed": 1}


def run(function: Any, axes: Any, store: Path | None = None, **more: Any) -> Sweep:
    with ThreadPoolExecutor(4) as executor:
        scan = sweep(function, axes, executor=executor, store=store, **more)
        scan.wait()
        return scan


@pytest.fixture(params=["memory", "running", "stored"])
def scan(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    store = None if request.param == "memory" else tmp_path / "scan.sweep"
    running = run(simulate, {"energy": [3, 1, 2], "gamma": [0.1, 0.2]}, store, repeat=2, seed=1)
    return running if request.param != "stored" else open_sweep(tmp_path / "scan.sweep")


def test_a_frame_has_a_row_for_each_point_in_order(scan: Any) -> None:
    frame = scan.to_dataframe()
    assert list(frame.columns) == ["energy", "gamma", "repeat", "seed", "loss", "trace", "kind", "result.seed"]
    assert list(frame["energy"]) == [3] * 4 + [1] * 4 + [2] * 4
    assert frame["loss"].isna().sum() == 2
    assert frame["loss"][0] == pytest.approx(0.3)
    meta = scan.to_dataframe(meta=True)
    assert list(meta.columns[-8:]) == ["status", "error", "seconds", "attempts", "job", "run", "host", "code"]
    assert list(meta["status"]).count("failed") == 2
    assert "ValueError: no such" in set(meta["error"])


def test_csv_needs_no_pandas_and_names_arrays(scan: Any, tmp_path: Path) -> None:
    text = scan.to_csv(tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_bytes() == text.encode()
    lines = text.splitlines()
    assert lines[0] == "energy,gamma,repeat,seed,loss,trace,kind,result.seed"
    assert lines[5].startswith("1,0.1,0,")
    assert lines[5].endswith(",0.1,int64[3],good,1")
    assert lines[11].endswith(",,,,")


def test_names_that_the_table_has_itself_stay_the_users(tmp_path: Path) -> None:
    def compute(run: int) -> dict[str, Any]:
        if run == 0:
            raise ValueError("first")
        return {"error": run / 8, "seed": 3}

    scan = run(compute, {"run": [0, 2]}, tmp_path / "s")
    for shown in (scan, open_sweep(tmp_path / "s")):
        first, second = shown.to_dataframe(meta=True).to_dict("records")
        assert (first["run"], first["sweep.error"], first["status"]) == (0, "ValueError: first", "failed")
        assert np.isnan(first["error"])
        assert (second["run"], second["error"], second["sweep.error"]) == (2, 0.25, "")
        assert "sweep.run" in second
        assert shown.to_xarray()["seed"].sel(run=2) == 3
    repeated = run(lambda repeat, seed: repeat, {"repeat": [5]}, repeat=2, seed=1)
    assert [line.split(",")[:2] for line in repeated.to_csv().splitlines()] == [
        ["repeat", "sweep.repeat"], ["5", "0"], ["5", "1"],
    ]  # fmt: skip


def test_a_dataset_masks_what_failed_and_names_dimensions(scan: Any) -> None:
    data = scan.to_xarray(dims={"trace": ["time"]}, coords={"time": [0.0, 0.5, 1.0]})
    assert dict(data.sizes) == {"energy": 3, "gamma": 2, "repeat": 2, "time": 3}
    assert list(data["energy"].values) == [1, 2, 3]
    assert data["loss"].sel(energy=3, gamma=0.2, repeat=0) == pytest.approx(0.6)
    assert bool(data["loss"].sel(energy=2, gamma=0.2).isnull().all())
    assert list(data["trace"].sel(energy=3, gamma=0.1, repeat=1).values) == [0, 3, 6]
    assert data["kind"].sel(energy=1, gamma=0.1, repeat=0) == "good"
    with pytest.raises(ValueError, match="'trace' has 1 dimensions"):
        scan.to_xarray(dims={"trace": ["time", "space"]})


@pytest.mark.parametrize("is_stored", [False, True])
def test_classes_spread_over_columns(is_stored: bool, tmp_path: Path) -> None:
    store = tmp_path / "s" if is_stored else None
    both = run(lambda x: Pair(x, [x]) if x else Run(0.5, (1,), {"a": 1, "b": {"c": 2}}), {"x": [0, 1]}, store)
    rows = both.to_dataframe().to_dict("records")
    assert {name: rows[0][name] for name in ("loss", "trace", "inner.a", "inner.b.c")} == {
        "loss": 0.5, "trace": (1,), "inner.a": 1, "inner.b.c": 2,
    }  # fmt: skip
    assert rows[1]["first"] == 1
    assert rows[1]["second"] == [1]
    assert list(run(lambda x: x + 1, {"x": [1]}).to_dataframe()["result"]) == [2]


def test_axes_that_go_together_share_a_dimension_and_labels_are_shown() -> None:
    axes = {("x", "y"): [(1, 2), (3, 4)], "mesh": [Labelled(object(), "fine"), Labelled(object(), "coarse")]}
    data = run(lambda x, y, mesh: x * y, axes).to_xarray()
    assert dict(data.sizes) == {"x": 2, "mesh": 2}
    assert list(data["y"].values) == [2, 4]
    assert list(data["mesh"].values) == ["fine", "coarse"]
    assert data["result"].values.tolist() == [[2, 2], [12, 12]]


def test_cases_and_gaps_in_the_product() -> None:
    cases = run(lambda x, y: x + y, None, cases=[{"x": 1, "y": 2}, {"x": 5, "y": 6}]).to_xarray()
    assert dict(cases.sizes) == {"point": 2}
    assert list(cases["x"].values) == [1, 5]
    gaps = run(lambda x, y: x + y, {"x": [1, 2], "y": [1, 2]}, where=lambda x, y: x <= y).to_xarray()
    assert np.isnan(gaps["result"].sel(x=2, y=1))
    assert gaps["result"].sel(x=1, y=2) == 3


def test_arrays_of_several_shapes_are_said() -> None:
    with pytest.raises(ValueError, match="'result' have several shapes"):
        run(lambda x: np.zeros(x), {"x": [1, 2]}).to_xarray()


@pytest.fixture
def pyplot(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("MPLBACKEND", "Agg")
    import matplotlib.pyplot as plt

    yield plt
    plt.close("all")


def test_lines_have_bands_over_repeats_and_mark_what_failed(scan: Any, pyplot: Any) -> None:
    ax = scan.plot(x="energy", y="loss", hue="gamma")
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("energy", "loss")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["0.1", "0.2", "failed"]
    assert len(ax.collections) == 2  # the bands
    assert list(ax.lines[0].get_ydata()) == pytest.approx([0.1, 0.2, 0.3])
    assert list(ax.lines[-1].get_xdata()) == [2]
    _, given = pyplot.subplots()
    assert scan.plot(x="gamma", ax=given, y="loss") is given


def test_two_axes_are_a_heatmap_and_more_are_facets(scan: Any, pyplot: Any) -> None:
    ax = scan.plot()
    [image] = ax.images
    assert image.get_array().shape == (2, 3)
    assert bool(image.get_array().mask[1][1])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("energy", "gamma")
    assert len(ax.lines) == 1
    many = run(lambda a, b, c: a + b + c, {"a": [1, 2], "b": [1, 2, 3], "c": [0.5, 1.5]})
    grid = many.plot()
    assert grid.shape == (1, 2)
    assert [panel.get_title() for panel in grid[0]] == ["c = 0.5", "c = 1.5"]
    assert many.plot(x="a", hue="b", row="c").shape == (2, 1)
    for wrong in ({"x": "mass"}, {"y": "mass"}, {"hue": "mass"}, {"col": "c", "ax": ax}):
        with pytest.raises(ValueError, match="mass|facets"):
            many.plot(**wrong)


def test_the_command_line_shows_a_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = str(tmp_path / "scan.sweep")
    run(simulate, {"energy": [1, 2], "gamma": [0.1, 0.2]}, tmp_path / "scan.sweep", repeat=2, seed=1).close()
    assert cli.main(["sweep", "show", store]) == 0
    said = capsys.readouterr().out
    assert "simulate, 8 points" in said
    assert "axis energy: 2 values" in said
    assert "6 done, 2 failed" in said
    assert cli.main(["sweep", "results", store]) == 0
    assert capsys.readouterr().out == open_sweep(store).to_csv()
    assert cli.main(["sweep", "failed", store]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "energy=2, gamma=0.2, repeat 0: ValueError: no such"
    assert cli.main(["sweep", "show", str(tmp_path / "nothing")]) == 1
    assert "there is no store of a sweep" in capsys.readouterr().err


def test_numbers_of_numpy_are_shown_as_any_other_and_a_seed_of_0_as_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, axes = tmp_path / "scan.sweep", {"energy": np.array([1, 2])}
    with run(simulate, axes, store, constants={"gamma": np.float64(0.2)}, seed=0) as scan:
        assert sorted(map(repr, scan)) == ["<Point energy=1: done>", "<Point energy=2: failed>"]
        assert "gamma=0.2" in scan._repr_html_()
    cli.main(["sweep", "show", str(store)])
    assert "constant gamma = 0.2\n  root of the seeds: 0\n" in capsys.readouterr().out
    cli.main(["sweep", "failed", str(store)])
    assert capsys.readouterr().out.startswith("energy=2: ValueError")
