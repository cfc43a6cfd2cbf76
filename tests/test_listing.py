"""`kaleidogan runs`: what is read from the runs' folders, and how it is shown."""

import csv
import io
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import write_set
from kaleidogan import cli
from kaleidogan.training.listing import as_table, differing_overrides, in_order, read_run
from kaleidogan.training.runs import Run

COLUMNS = "images,progress/kimg,metric/swd,loss/generator"


def write_run(name: str, values: tuple[float, ...] = (3.0, 1.0, 2.0), **about: object) -> Run:
    """A run's folder as a training leaves it: a row every 1000 images."""
    run = Run(name)
    options = {"kimg": 3.0, "optimized_metric": None, "optimized_direction": "minimize", **about}
    run.record_start(
        "".join(f"{key}: {json.dumps(value)}\n" for key, value in options.items()), [f"seed={name}"]
    )
    rows = [f"{1000 * (i + 1)},{i + 1}.0,{value},{-value}" for i, value in enumerate(values)]
    (run.folder / "metrics.csv").write_text("\n".join([COLUMNS, *rows]) + "\n")
    return run


def listed(capsys, *arguments: str) -> list[dict[str, object]]:
    cli.run("runs", ["output=json", *arguments], program="kaleidogan runs")
    return json.loads(capsys.readouterr().out)


def test_the_states(folder):
    states = {}
    for name in ("running", "killed", "finished", "stopped", "failed"):
        write_run(name).record_status("running")
    Run("finished").record_status("finished")
    Run("stopped").record_status("stopped", "SIGTERM")
    Run("failed").record_status("failed", "OSError: the disk is full")
    write_run("old")
    write_run("old-short", (1.0,))
    with Run("running").lock():
        states = {path.name: read_run(path) for path in Path("runs").iterdir()}
    assert {name: run.state for name, run in states.items()} == {
        **{name: name for name in ("running", "killed", "finished", "stopped", "failed")},
        "old": "finished",
        "old-short": "unknown",
    }
    assert states["stopped"].reason == "SIGTERM"
    assert states["failed"].reason == "OSError: the disk is full"
    Path("runs/empty").mkdir()
    assert read_run(Path("runs/empty")) is None


def test_the_time_trained_is_added_up_over_all_starts(folder):
    run = write_run("a")

    def shift(seconds: float) -> None:
        state = json.loads((run.folder / "state.json").read_text())
        (run.folder / "state.json").write_text(json.dumps({**state, "since": state["since"] - seconds}))

    run.record_status("running")
    shift(100)
    run.record_status("stopped", "SIGTERM")
    shift(50)  # stood still
    run.record_status("running")
    shift(10)
    with run.lock():
        assert read_run(run.folder).seconds == pytest.approx(110, abs=2)
    # Killed: its last checkpoint is what is left of that start.
    run.last.touch()
    run.record_status("running")
    run.record_status("finished")
    assert read_run(run.folder).seconds == pytest.approx(110, abs=2)


def test_metric_last_and_best(folder, capsys):
    write_run("a")
    write_run("b", optimized_metric="loss/generator", optimized_direction="maximize")
    write_run("c", values=())
    one, other, none = listed(capsys, "sort=name")
    assert (one["metric"], one["last"], one["best"]) == ("metric/swd", 2.0, 1.0)
    assert (other["metric"], other["last"], other["best"]) == ("loss/generator", -2.0, -1.0)
    assert (none["metric"], none["last"], none["kimg"]) == (None, None, 0)
    assert listed(capsys, "pattern=b", "metric=metric/swd")[0]["best"] == 1.0


def test_a_row_that_was_cut_short_and_cells_without_a_number_do_not_count(folder):
    run = write_run("a", (3.0, float("nan"), 2.0))
    with (run.folder / "metrics.csv").open("a") as stream:
        stream.write("4000,4.0,,1\n5000,5.0,0")
    found = read_run(run.folder)
    assert (found.kimg, found.last, found.best) == (4.0, 2.0, 2.0)


def test_filters_and_order(folder, capsys):
    for name, best in (("a-1", 2.0), ("a=2", 1.0), ("b", 3.0)):
        write_run(name, (best,))
    write_run("a-none", ())
    (Path("runs") / "b" / "sweep.json").write_text('{"job": "x/0", "group": "g", "tags": []}')
    assert [run["name"] for run in listed(capsys, "pattern=a*", "sort=metric")] == ["a=2", "a-1", "a-none"]
    assert [run["name"] for run in listed(capsys, "pattern=a=*")] == ["a=2"]
    assert [run["name"] for run in listed(capsys, "group=g")] == ["b"]
    assert [run["name"] for run in listed(capsys)] == ["a-1", "a=2", "b", "a-none"]
    found = [read_run(path) for path in sorted(Path("runs").iterdir())]
    for order in ("name", "state", "kimg", "metric", "time", "written"):
        assert len(in_order(found, order)) == 4


def test_what_differs_is_what_was_typed_differently(folder):
    typed = {
        "a": ["model=dcgan", "++seed=1", "name=a"],
        "b": ["model=dcgan", "++seed=2", "++kimg=3", "+x='y'"],
    }
    for name, overrides in typed.items():
        write_run(name)
        (Path("runs") / name / "overrides.json").write_text(json.dumps(overrides))
    found = [read_run(Path("runs") / name) for name in typed]
    assert differing_overrides(found) == ["seed", "x"]
    lines = as_table(found, ["seed", "x"], 120).splitlines()
    assert lines[1].endswith("seed=1")
    assert lines[2].endswith("seed=2 x=y")


@pytest.mark.parametrize("width", [100, 160])
def test_the_table_fits_the_terminal(folder, width):
    for number in range(3):
        write_run(f"a-very-long-name-{'x' * 120}-{number}").record_status("failed", "why\n" + "y" * 300)
    found = [read_run(path) for path in sorted(Path("runs").iterdir())]
    lines = as_table(found, differing_overrides(found), width).splitlines()
    assert max(map(len, lines)) <= width
    assert len({line.split()[0] for line in lines[1:4]}) == 3
    assert "last, best: metric/swd" in lines
    assert as_table([], [], width) == "no runs"


def test_csv_has_a_column_for_each_override_that_differs(folder, capsys):
    write_run("a")
    write_run("b")
    cli.run("runs", ["output=csv", "sort=name"], program="kaleidogan runs")
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["name"], row["seed"], row["best"]) for row in rows] == [("a", "a", "1.0"), ("b", "b", "1.0")]


def test_no_folder_is_answered_with_the_remedy(folder, capsys):
    with pytest.raises(SystemExit):
        cli.run("runs", ["root=nowhere"], program="kaleidogan runs")
    assert "there is no folder 'nowhere'" in capsys.readouterr().err


def test_a_real_run_tells_how_it_stands(train, capsys, folder):
    write_set(folder / "set")
    train("callbacks.quality.pictures=8")
    capsys.readouterr()
    (run,) = listed(capsys)
    assert (run["state"], run["kimg"], run["of_kimg"], run["metric"]) == (
        "finished",
        0.048,
        0.048,
        "metric/swd",
    )
    assert 0 < run["seconds"] < 60
    with pytest.raises(SystemExit):
        train("kimg=0.064", "optimized_metric=loss/generatr")
    capsys.readouterr()
    (run,) = listed(capsys)
    assert run["state"] == "failed"
    assert "optimized_metric=loss/generatr is not logged" in run["reason"]


def test_two_hundred_runs_are_listed_in_no_time(folder):
    for number in range(200):
        write_run(f"r{number}", tuple(float(value) for value in range(1000))).record_status("finished")
    code = (
        "import sys, time; from kaleidogan.training.listing import list_runs; began = time.process_time(); "
        "list_runs(); print(time.process_time() - began, 'torch' in sys.modules)"
    )
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert time.perf_counter() - began < 20
    seconds, has_torch = done.stdout.splitlines()[-1].split()
    assert has_torch == "False"
    assert float(seconds) < 1
