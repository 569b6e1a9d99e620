"""How long does scikit-learn's GridSearchCV of 60 fits take, beside the backends that joblib's users know?

    python benchmarks/gridsearch.py [--fits 60] [--folds 5] [--samples 600] [--trees 15]

The same search, here without a backend, with loky, with dask's LocalCluster, and on the embedded service by jobs and by
warm workers, in one run, as many workers as the machine has cores. What starts a pool is not counted: each has run
a small search before. All must find the same scores. *calls* are the batches that joblib has made, *requests* those of
the client.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).with_name("support"))  # not this folder, where a file is named as a library

from measuring import CORES, Table, argument_parser, machine, seconds

from prominence_executor import ProminenceExecutor, Resources, Warm

Peer = Callable[[], Any]  # a context in which joblib runs things; it has the executor, if there is one


def search(options: Any, fits: int, samples: int, jobs: int | None) -> list[float]:
    """The mean scores of a grid search of so many fits."""
    from sklearn.datasets import make_classification
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import GridSearchCV

    data, labels = make_classification(n_samples=samples, n_features=20, n_informative=8, random_state=0)
    grid = {"max_depth": list(range(2, 2 + max(1, fits // options.folds)))}
    forest = RandomForestClassifier(n_estimators=options.trees, random_state=0)
    found = GridSearchCV(forest, grid, cv=options.folds, n_jobs=jobs, refit=False).fit(data, labels)
    scores: list[float] = found.cv_results_["mean_test_score"].tolist()
    return scores


@contextmanager
def loky() -> Iterator[None]:
    from joblib import parallel_config

    with parallel_config("loky", n_jobs=CORES):
        yield


@contextmanager
def dask() -> Iterator[None]:
    from distributed import Client, LocalCluster
    from joblib import parallel_config

    with (
        LocalCluster(n_workers=CORES, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster),
        parallel_config("dask"),
    ):
        yield


@contextmanager
def ours(workers: Warm | None) -> Iterator[ProminenceExecutor]:
    from joblib import parallel_config

    from prominence_executor.integrations.joblib import register

    register()
    with (
        ProminenceExecutor(
            url="local", max_workers=CORES, workers=workers, resources=Resources(walltime=60)
        ) as executor,
        parallel_config("prominence", executor=executor),
    ):
        yield executor


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--fits", type=int, default=60, help="of each search (default: %(default)s)")
    parser.add_argument("--folds", type=int, default=5, help="of its cross-validation (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=600, help="rows of the data (default: %(default)s)")
    parser.add_argument("--trees", type=int, default=15, help="of each fit's forest (default: %(default)s)")
    options = parser.parse_args()
    peers: dict[str, tuple[str | None, Peer]] = {
        "one after the other": (None, nullcontext),
        "loky": (None, loky),
        "dask LocalCluster": ("distributed", dask),
        "ProminenceExecutor, jobs": (None, lambda: ours(None)),
        "ProminenceExecutor, warm": (None, lambda: ours(Warm())),
    }
    print(f"{machine()}; GridSearchCV of {options.fits} fits")
    table = Table(("", "<26"), ("seconds", ">9.2f"), ("of loky's", ">11.2f"), ("calls", ">7"), ("requests", ">10"))
    scores: list[list[float]] = []
    taken: dict[str, float] = {}
    for peer, (library, start) in peers.items():
        if library and find_spec(library) is None:
            table.row(peer, "not installed")
            continue
        jobs = None if start is nullcontext else -1
        with start() as executor:
            search(options, options.folds, 200, jobs)  # the pool has started
            first = (0, 0) if executor is None else numbers(executor)
            taken[peer] = seconds(lambda jobs=jobs: scores.append(search(options, options.fits, options.samples, jobs)))  # type: ignore[misc]
            calls, requests = (0, 0) if executor is None else numbers(executor)
            counts = () if executor is None else (calls - first[0] - 1, requests - first[1])
            ratio = taken[peer] / taken["loky"] if "loky" in taken else "-"
            table.row(peer, taken[peer], ratio, *counts)
    if any(found != scores[0] for found in scores):
        raise SystemExit("the searches have found different scores")


def numbers(executor: ProminenceExecutor) -> tuple[int, int]:
    """How many calls and how many requests there have been, without those of asking, which is a call, too."""
    asked = executor.submit(int)
    asked.result()
    return asked.index, executor.client.requests_sent.total()


if __name__ == "__main__":
    main()
