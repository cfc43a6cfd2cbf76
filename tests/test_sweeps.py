"""Sweeps: names, folders, failures and searches, with the real commands on tiny settings."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import wandb
import yaml
from joblib.externals.loky import get_reusable_executor

import wandb_file
from conftest import TINY, small, write_set
from kaleidogan import cli, sweeps
from kaleidogan.commandline import read_overrides
from kaleidogan.config import ConfigError
from kaleidogan.training import checkpoint
from kaleidogan.training.runs import Run

SETTINGS = [o for o in TINY if "samples" not in o and not o.startswith(("kimg", "batch_size"))]
SETTINGS += [*small("dcgan"), "model=dcgan", "data=shards", "data.path=set", "data.num_workers=0"]
SETTINGS += ["batch_size=8", "kimg=0.016", "callbacks=none", "logger=csv"]


@pytest.fixture
def sweep(folder):
    """Run `kaleidogan train -m` on a tiny set; returns the status."""
    write_set(folder / "set")

    def start(*overrides: str) -> int:
        try:
            cli.run("train", ["-m", *SETTINGS, *overrides], program="kaleidogan train")
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return start


def names() -> set[str]:
    return {path.name for path in Path("runs").glob("[!.]*")}


def names_of(*overrides: str) -> list[str]:
    """What the jobs of a command line are called."""
    plan, jobs = sweeps.plan(read_overrides(["-m", *overrides])[1])
    return [sweeps.name_of("a", sweeps.differences(job, plan.fixed)) for job in jobs]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["seed=0,1", "kimg=2"], ["a-seed=0", "a-seed=1"]),
        (["model.learning_rate=2e-4"], ["a"]),
        (["model.learning_rate=2e-4,0.001"], ["a-learning_rate=0.0002", "a-learning_rate=0.001"]),
        (["augment.target=0.6,.7", "model.learning_rate=1e-5"], ["a-target=0.6", "a-target=0.7"]),
        (["model.kimg=1,2", "augment.kimg=3"], ["a-kimg=1", "a-kimg=2"]),
        (["model.kimg=1,2", "augment.kimg=3,3"], ["a-augment.kimg=3-model.kimg=1"]),
        (["model.kimg=1,2", "kimg=3,4"], ["a-kimg=3-model.kimg=1"]),
        (["model=dcgan,progan"], ["a-model=dcgan", "a-model=progan"]),
        (["resolution=[48,64],64"], ["a-resolution=48,64-e425bb", "a-resolution=64"]),
        (["data.path=/x/a b/c=d,e"], ["a-path=x-a-b-c-d-5463e4", "a-path=e"]),
        (["x=-1,1"], ["a-x=-1", "a-x=1"]),
        (["model.r1_gamma=null,1"], ["a-r1_gamma=null", "a-r1_gamma=1"]),
    ],
)
def test_a_job_is_named_by_what_differs(overrides, expected):
    found = names_of(*overrides)
    assert set(expected) <= set(found)
    assert all(Run(name).name == name for name in found)


def test_how_a_command_is_typed_does_not_change_the_names():
    typed = names_of("model.learning_rate=2e-4,1e-3", "seed=0,1")
    assert set(typed) == set(names_of("seed=1,0", "model.learning_rate=0.0002,0.0010"))


def test_names_that_are_cut_stay_different_and_the_same_for_the_same_job():
    path = "/a/very/long/path/that/nobody/would/want/in/a/name"
    typed = [f"data.path={path}/1,{path}/2", "model.learning_rate=0.00012345678,0.00012345679"]
    found = names_of(*typed)
    assert len(set(found)) == 4
    assert all(re.search("-[0-9a-f]{6}$", name) for name in found)
    assert found == names_of(*typed)
    many = names_of(*(f"model.a_rather_long_name_{letter}=1,2" for letter in "abcdefg"))
    assert len(set(many)) == len(many)
    assert max(len(name) for name in many) <= sweeps.LONGEST_NAME


def test_a_value_that_is_added_renames_no_job():
    assert set(names_of("data.path=a/b,c")) < set(names_of("data.path=a/b,c,a-b"))


def test_values_that_would_be_written_alike_are_told_apart():
    one, other = names_of("data.path=x/a,x-a")
    assert one != other


def test_a_named_sweep_is_repeated_without_training_again(sweep, capsys):
    assert sweep("name=s", "seed=0,1") == 0
    assert names() == {"s-seed=0", "s-seed=1"}
    capsys.readouterr()
    assert sweep("name=s", "seed=0,1,2") == 0
    said = capsys.readouterr().out
    assert said.count("has reached its 0.016 kimg") == 2
    assert "3 jobs: 3 finished" in said
    assert "kaleidogan runs group=s" in said
    assert names() == {"s-seed=0", "s-seed=1", "s-seed=2"}


def test_a_sweep_without_a_name_takes_new_folders_but_a_job_that_starts_again_its_own(sweep):
    assert sweep("seed=0,1") == 0
    assert sweep("seed=0,1") == 0
    assert names() == {f"dcgan-set-seed={s}{n}" for s in (0, 1) for n in ("", "-002")}
    folder = max(path for path in Path("runs/.sweeps").iterdir() if path.is_dir())
    overrides = ["model=dcgan", "++seed=1"]
    again = [sweeps.Job(folder / "1", overrides).take_run(None, "dcgan-set") for _ in range(2)]
    assert again == ["dcgan-set-seed=1-002"] * 2
    assert sweeps.Job(folder / "7", overrides).take_run(None, "dcgan-set") == "dcgan-set-seed=1-003"


def test_all_ranks_of_a_job_find_one_folder(folder):
    """Several processes at once, as a batch system starts them."""
    path = sweeps.make_folder(sweeps.Sweep(None, ()))
    code = (
        "import sys; from pathlib import Path; from kaleidogan import sweeps; "
        f"print(sweeps.Job(Path({str(path)!r}) / sys.argv[1], ['++seed=0']).take_run(None, 'a'))"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, job], stdout=subprocess.PIPE, text=True)
        for job in ("0", "1") * 6
    ]
    found = [process.communicate()[0].strip() for process in started]
    assert len(set(found[::2])) == len(set(found[1::2])) == 1
    assert set(found) == {"a-seed=0", "a-seed=0-002"}
    assert {path.name for path in Path("runs").iterdir()} == {".sweeps", *found}


def test_a_job_goes_on_outside_of_its_sweep(sweep):
    assert sweep("name=s", "model.learning_rate=2e-4,1e-3", "sweep=grid") == 0
    cli.run("train", ["name=s-learning_rate=0.001", "kimg=0.032"], program="train.py")
    saved = checkpoint.load(Path("runs/s-learning_rate=0.001/checkpoints/last.ckpt"))
    assert saved["state_dict"]["_extra_state"]["images_seen"] == 32
    assert saved["hyper_parameters"]["learning_rate"] == 1e-3
    assert names() == {"s-learning_rate=0.001", "s-learning_rate=0.0002"}


def test_a_mistyped_key_is_answered_once_before_anything_starts(sweep, capsys, folder):
    assert sweep("modle.width=3", "seed=0,1,2") == 1
    said = capsys.readouterr()
    assert said.err == "Error: there is no key modle; did you mean model?\n"
    assert "Launching" not in said.out
    assert not (folder / "runs").exists()


def test_an_override_that_cannot_be_read_is_one_message(sweep, capsys):
    assert sweep("kimg=[") == 1
    assert "Traceback" not in capsys.readouterr().err
    assert sweep("model.width=interval(1,3)") == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "does not support sweep type" in said


@pytest.mark.filterwarnings("ignore:os.fork")
@pytest.mark.parametrize("launcher", ["local", pytest.param("joblib", marks=pytest.mark.slow)])
def test_a_failed_job_ends_no_other_and_is_named_at_the_end(sweep, capfd, launcher, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert sweep(f"launcher={launcher}", "name=s", "batch_size=8,-1,4", "data.path=set,nowhere") == 1
    said = capfd.readouterr()
    assert "6 jobs: 2 finished, 4 failed" in said.out
    assert "failed: job 2: batch_size=-1: input should be" in said.out
    assert "failed: job 1, runs/s-batch_size=8-path=nowhere: no data set in 'nowhere'" in said.out
    assert "Error in job 2: batch_size=-1" in said.err
    assert "Traceback" not in said.err
    assert names() == {"s-batch_size=8-path=set", "s-batch_size=4-path=set"}
    if launcher == "joblib":
        saved = checkpoint.load(Path("runs/s-batch_size=8-path=set/checkpoints/last.ckpt"))
        assert saved["threads"] == max(1, len(os.sched_getaffinity(0)) // 2)


def test_an_error_of_the_program_itself_is_shown_and_ends_no_other_job(sweep, capsys, monkeypatch):
    from kaleidogan.training.gan import GAN

    step = GAN.discriminator_step

    def fail_once(self, reals, optimizer):
        if self.hparams["learning_rate"] == 0.5:
            raise KeyError("a mistake")
        return step(self, reals, optimizer)

    monkeypatch.setattr(GAN, "discriminator_step", fail_once)
    assert sweep("name=s", "model.learning_rate=0.5,0.001") == 1
    said = capsys.readouterr()
    assert "Traceback" in said.err
    assert "failed: job 0, runs/s-learning_rate=0.5: KeyError: 'a mistake'" in said.out
    assert "1 finished" in said.out
    assert json.loads(Path("runs/s-learning_rate=0.5/state.json").read_text())["status"] == "failed"


def test_a_launcher_alone_is_a_sweep_of_one_job():
    assert read_overrides(["launcher=joblib", "name=a"])[0] == ["--multirun"]
    assert read_overrides(["launcher=local", "name=a"])[0] == []
    assert names_of("launcher=joblib", "name=a") == ["a"]


@pytest.mark.parametrize("option", ["launcher=joblib", "sweep=optuna"])
def test_a_plugin_that_is_missing_is_named_with_its_extra(option, monkeypatch):
    plugin = {"joblib": "hydra_joblib_launcher", "optuna": "hydra_optuna_sweeper"}[option.split("=")[1]]
    monkeypatch.setitem(sys.modules, f"hydra_plugins.{plugin}", None)
    extra = re.escape(f"pip install kaleidogan[{option.split('=')[1]}]")
    with pytest.raises(ConfigError, match=f"{option} needs {plugin.replace('_', '-')}: {extra}"):
        read_overrides([option])


@pytest.mark.slow
def test_a_single_job_by_joblib_is_the_run_of_that_name(folder, capfd):
    # joblib keeps its processes for the next sweep of this one, and theirs is another test's folder.
    get_reusable_executor().shutdown(wait=True)
    write_set(folder / "set")
    settings = [*SETTINGS, "data.num_workers=1", "launcher=joblib", "name=one"]
    cli.run("train", settings, program="train.py")
    assert "1 job: 1 finished\nits run: runs/one" in capfd.readouterr().out
    assert names() == {"one"}


@pytest.mark.slow
def test_wandb_gets_the_sweep_as_a_group_and_what_differs_as_tags(sweep):
    def told(name):
        wandb.teardown()  # W&B's own process writes the end
        (file,) = Path(f"runs/{name}/wandb").glob("offline-run-*/run-*.wandb")
        (run,) = [r.run for r in wandb_file.records(file) if r.WhichOneof("record_type") == "run"][:1]
        return run.run_group, list(run.tags)

    assert sweep("name=s", "seed=0,1", "logger=wandb") == 0
    assert told("s-seed=1") == ("s", ["seed=1", "dcgan", "set"])
    assert sweep("name=t", "seed=0,1", "logger=wandb", "logger.wandb.group=g", "logger.wandb.tags=[x]") == 0
    assert told("t-seed=1") == ("g", ["x", "seed=1", "dcgan", "set"])


@pytest.mark.slow
def test_a_signal_ends_a_sweep_whose_command_then_goes_on(folder):
    write_set(folder / "set")
    command = [sys.executable, Path(__file__).parents[1] / "train.py", "-m", *SETTINGS]
    command += ["name=s", "seed=0,1", "kimg=0.8", "tick_kimg=0.08"]
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    while not (folder / "runs/s-seed=0/checkpoints/last.ckpt").exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, said
    assert "stopped: job 0, runs/s-seed=0" in said
    assert "Traceback" not in said
    assert json.loads((folder / "runs/s-seed=0/state.json").read_text())["status"] == "stopped"
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "going on from" in done.stdout
    assert "2 jobs: 2 finished" in done.stdout


SEARCH = ("sweep=optuna", "name=o", "optimized_metric=loss/generator", "hydra.sweeper.n_trials=3")
SEARCH += ("callbacks=default", "callbacks.samples=null", "callbacks.quality=null")


@pytest.mark.filterwarnings("ignore:.*declarative_base")
def test_a_search_finds_the_best_and_is_repeated_without_training_again(sweep, capsys):
    def best():
        folder = max(path for path in Path("runs/.sweeps").iterdir() if path.is_dir())
        return yaml.safe_load((folder / "optimization_results.yaml").read_text())

    assert sweep(*SEARCH, "optimized_direction=maximize") == 0
    first, made = best(), names()
    found = [Path(f"runs/{name}/metrics.csv").read_text().splitlines() for name in made]
    values = [float(lines[-1].split(",")[lines[0].split(",").index("loss/generator")]) for lines in found]
    assert first["best_value"] == pytest.approx(max(values), rel=1e-6)
    assert len(set(values)) == 3
    capsys.readouterr()
    assert sweep(*SEARCH, "optimized_direction=maximize") == 0
    assert best() == first
    assert names() == made
    assert capsys.readouterr().out.count("has reached its 0.016 kimg") == 3
    assert sweep(*SEARCH, "optimized_direction=maximize", "hydra.sweeper.n_trials=4") == 0
    assert names() > made
    assert len(names()) == 4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*declarative_base")
def test_a_search_goes_on_after_a_failed_trial(sweep, capsys):
    assert sweep(*SEARCH, "hydra.sweeper.n_trials=6", "batch_size=8,64") == 1
    said = capsys.readouterr()
    finished, failed = re.search(r"6 jobs: (\d) finished, (\d) failed", said.out).groups()
    assert int(finished) + int(failed) == 6
    assert int(failed) > 0
    assert "fewer than one batch of 64" in said.out
    assert "Traceback" not in said.err
    assert sweep(*SEARCH, "name=p", "batch_size=64") == 1
    assert capsys.readouterr().err.endswith("Error: no job came to a value, so there is no best one\n")


def test_a_search_without_a_metric_is_refused(sweep, capsys):
    assert sweep("sweep=optuna") == 1
    assert "a search needs what to optimise" in capsys.readouterr().err
