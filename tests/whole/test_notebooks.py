"""A notebook that is executed: what its cells show of executors, futures, jobs, sweeps, images, reports and errors."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import traceback
from typing import Any

import pytest
from paths import ROOT
from tags import Tags
from variables import unmeasured

from prominence_executor import ProminenceExecutor
from prominence_executor.local import LocalService
from prominence_executor.run.notebook import without_package

pytestmark = pytest.mark.once

EXECUTE = """
import json, sys, nbclient, nbformat
cells = json.load(sys.stdin)
notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells.values()])
nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3", allow_errors=True).execute()
json.dump({name: cell.outputs for name, cell in zip(cells, notebook.cells)}, sys.stdout)
"""
CELLS = {
    "executor": """
from prominence_executor import Job, ProminenceExecutor, Task, sweep

def inverse(x):
    scale = 1 / x
    return scale

executor = ProminenceExecutor(name="notebook", poll_interval=(0.05, 0.5), labels={"a": "b"})
futures = [executor.submit(inverse, x) for x in (2, 0)]
futures[0].result(), futures[1].exception()
executor""",
    "done": "futures[0]",
    "failed": "futures[1]",
    "error": "futures[1].result()",
    "error of a map": "list(executor.map(inverse, [1, 0]))",
    "error in a coroutine": """
import asyncio
await asyncio.wrap_future(futures[1])""",
    "pickled": """
import pickle, traceback
copied = pickle.loads(pickle.dumps(futures[1].exception()))
print(type(copied).__name__, "".join(copied._render_traceback_()), len(traceback.format_exc()))""",
    "job": 'Job(name="mine", tasks=[Task(image="<b>", command="<script>alert(1)</script>")])',
    "sweep": """
points = sweep(inverse, {"x": [1, 2]}, executor=executor, progress=False)
points.wait()
points""",
    "image": "executor.check_image()",
    "report": "executor.shutdown(); executor.report()",
}


@pytest.fixture(scope="module")
def cells(service: LocalService) -> dict[str, Any]:
    """The outputs of the cells, by their names; Jupyter's client runs in a program of its own, since it leaves much."""
    variables = unmeasured(PROMINENCE_URL=service.url, PROMINENCE_TOKEN=service.token, PYTHONPATH=str(ROOT))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", EXECUTE], input=json.dumps(CELLS), env=variables, capture_output=True,
        text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    outputs: dict[str, Any] = json.loads(done.stdout)
    return outputs


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("executor", ["ProminenceExecutor, run notebook-", "calls that have ended", "calls that are open"]),
        ("done", ["call 0", "done", "completed", "float"]),
        ("failed", ["call 1", "failed", "ZeroDivisionError: division by zero"]),
        ("job", ["Job (not created)", "mine", "<b>: <script>alert(1)</script>"]),
        ("sweep", ["Sweep of inverse, 2 points", "x", "done"]),
        ("image", ["image python:", "Python", "same"]),
        ("report", ["run notebook-", "where the time went".capitalize(), "cpu hours"]),
    ],
)
def test_a_cell_shows_a_table_without_scripts(name: str, shown: list[str], cells: dict[str, Any]) -> None:
    (output,) = (output for output in cells[name] if output["output_type"] == "execute_result")
    tags = Tags(output["data"]["text/html"])
    assert "script" not in tags.names
    for text in shown:
        assert text in tags.text
    assert len(output["data"]["text/plain"]) < 1000 or name == "image"
    assert not re.search("(color|background)(-color)?: *(white|black|#fff|#000)", output["data"]["text/html"])


@pytest.mark.parametrize("name", ["error", "error of a map", "error in a coroutine"])
def test_an_error_shows_the_programs_own_frames_and_not_the_librarys(name: str, cells: dict[str, Any]) -> None:
    (output,) = (output for output in cells[name] if output["output_type"] == "error")
    text = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(output["traceback"]))
    assert (output["ename"], output["evalue"]) == ("ZeroDivisionError", "division by zero")
    assert "scale = 1 / x" in text  # where it was raised, in the job
    assert CELLS[name].strip().splitlines()[-1] in text  # and where it came out, here
    assert text.index("scale = 1 / x") < text.index(CELLS[name].strip().splitlines()[-1])
    assert "site-packages" not in text
    assert "prominence_executor/" not in text
    assert "concurrent/futures" not in text
    assert "frames of prominence_executor and concurrent.futures are not shown" in text


def test_an_error_from_a_notebook_can_be_pickled(cells: dict[str, Any]) -> None:
    (output,) = cells["pickled"]
    assert output["text"].startswith("ZeroDivisionError ")
    assert "division by zero" in output["text"]


def fails() -> None:
    raise LookupError("<b>nothing</b>")


def test_elsewhere_exceptions_and_tracebacks_stay_as_they_are(executor: ProminenceExecutor) -> None:
    future = executor.submit(fails)
    with pytest.raises(LookupError) as caught:
        future.result(60)
    error = caught.value
    assert not hasattr(error, "_render_traceback_")
    whole = "".join(traceback.format_exception(error))
    assert "future.py" in whole
    kept, folded = without_package(error.__traceback__)
    files = {frame.filename for frame in traceback.extract_tb(kept)}
    assert files == {__file__}
    assert folded >= 2
    assert "&lt;b&gt;nothing&lt;/b&gt;" in future._repr_html_()
