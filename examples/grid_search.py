"""Choosing a model by joblib: scikit-learn's GridSearchCV on the executor.

    python grid_search.py

`parallel_config("prominence", executor=executor)` is all that a program for many cores has to say. The data are
1,797 handwritten digits that come with scikit-learn; a support vector machine is chosen by three-fold
cross-validation. That it runs elsewhere may change no number: the table of scores is compared with one that is
computed in this process.

The image needs scikit-learn (and so numpy and scipy).
"""

from __future__ import annotations

import os
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from joblib import parallel_config
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.svm import SVC

from prominence_executor import ProminenceExecutor
from prominence_executor.integrations.joblib import register

WORKERS = 2  # jobs that stay; as many as there is room for
GRID = {"C": [0.1, 1.0, 10.0], "gamma": [1e-4, 1e-3, 1e-2]}


def main() -> int:
    """Search, compare, and return the exit status: 0 if the scores are those of this machine, and good."""
    pixels, digits = load_digits(return_X_y=True)
    train, test, train_digits, test_digits = train_test_split(
        pixels.astype(np.uint8), digits, test_size=0.6, random_state=0
    )  # the pixels are whole numbers up to 16, and travel with each call
    search = GridSearchCV(SVC(), GRID, cv=3)

    register()
    with (
        ProminenceExecutor(
            os.environ.get("PROMINENCE_URL", "local"), name="digits", workers="warm", max_workers=WORKERS
        ) as executor,
        parallel_config("prominence", executor=executor),
    ):
        search.fit(train, train_digits)
    scores = search.cv_results_["mean_test_score"]
    accuracy = search.score(test, test_digits)
    print(f"best: {search.best_params_}, cross-validated {search.best_score_:.4f}, on digits not seen {accuracy:.4f}")

    here = GridSearchCV(SVC(), GRID, cv=3).fit(train, train_digits).cv_results_["mean_test_score"]

    figure, ax = plt.subplots(figsize=(5, 4), layout="tight")
    table = scores.reshape(len(GRID["C"]), len(GRID["gamma"]))
    image = ax.imshow(table, cmap="viridis", vmin=0, vmax=1)
    ax.set(xlabel="gamma", ylabel="C", xticks=range(len(GRID["gamma"])), yticks=range(len(GRID["C"])))
    ax.set_xticklabels([f"{gamma:g}" for gamma in GRID["gamma"]])
    ax.set_yticklabels([f"{C:g}" for C in GRID["C"]])
    for (row, column), score in np.ndenumerate(table):
        ax.text(column, row, f"{score:.3f}", ha="center", va="center", color="black" if score > 0.6 else "white")
    figure.colorbar(image, label="cross-validated accuracy")
    figure.savefig("grid_search.png", dpi=80)

    good = bool(np.allclose(scores, here, atol=1e-12)) and accuracy > 0.96
    print(f"{len(scores)} models, scores as in this process:", "as it should be" if good else "WRONG")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
