"""W&B: what is recorded, one story over all starts, and a server that is away in every way."""

import csv
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wandb_file
from kaleidogan.training.logging import CSV, Wandb
from kaleidogan.training.logging.about import meaningful
from kaleidogan.training.runs import Run, new_run
from wandb_server import Server

GRID = np.zeros((8, 8, 3), np.uint8)


def one_record(run: Path) -> dict[str, Any]:
    """What the one record that `wandb sync` would send holds."""
    (path,) = run.glob("wandb/offline-run-*/*.wandb")
    return wandb_file.read(path)


def points(history: list[dict[str, Any]]) -> list[tuple[int, float]]:
    """The generator's loss at the images seen."""
    return [(row["_step"], row["loss/generator"]) for row in history if "loss/generator" in row]


def grids(history: list[dict[str, Any]]) -> list[int]:
    keys = ("samples/fakes._type", "samples/fakes")
    return [row["_step"] for row in history if any(key in row for key in keys)]


def table(run: Path) -> list[tuple[int, float]]:
    with (run / "metrics.csv").open() as stream:
        return [(int(row["images"]), float(row["loss/generator"])) for row in csv.DictReader(stream)]


@pytest.mark.slow
def test_what_a_run_tells_of_itself(train):
    settings = ["logger=wandb", "logger.wandb.group=g", "logger.wandb.tags=[mine]", "augment=ada"]
    run = train(
        *settings, "logger.wandb.artifacts=all", "optimized_metric=metric/swd", "checkpoint_kimg=0.03"
    )
    found = one_record(run)
    assert (found["name"], found["group"], found["job_type"]) == ("tiny", "g", "train")
    assert set(found["tags"]) == {"mine", "dcgan", "set", "ada"}
    config = found["config"]
    assert config["model"]["width"] == 4
    assert config["model"]["betas"] == [0.5, 0.999]
    assert config["augment"]["target"] == 0.6
    assert config["batch_size"] == 8
    assert "batch_size" not in config["model"]
    assert config["environment"]["ranks"] == 1
    assert config["environment"]["torch"]
    assert len(config["git_commit"]) >= 40
    text = json.dumps({key: value for key, value in config.items() if key != "_wandb"})
    for word in ("_target_", "null", "debug", "kaleidogan.", "hydra", str(run.parent.parent)):
        assert word not in text
    losses = [value for _, value in table(run)]
    assert found["summary"]["loss/generator"] == losses[-1]
    swd = [row["metric/swd"] for row in found["history"] if "metric/swd" in row]
    assert found["summary"]["metric/swd"] == {"min": min(swd), "last": swd[-1]}
    best = f"kimg-{0.016 * (1 + swd.index(min(swd))):g}"
    sent = [(Path(files["checkpoint.ckpt"]).name, set(aliases)) for aliases, files in found["artifacts"]]
    assert sent == [
        ("kimg-000000.032.ckpt", {"latest", "kimg-0.032"}),
        ("best.ckpt", {"latest", "best", best}),
        ("last.ckpt", {"latest", "kimg-0.048"}),
    ]


def test_a_config_says_what_matters():
    told = meaningful(
        {
            "_target_": "kaleidogan.training.play.train",
            "batch_size": 8,
            "resolution": (16, 16),
            "init_from": None,
            "debug": False,
            "model": {"_target_": "a.b.DCGAN", "batch_size": 8, "betas": (0.0, 0.99), "dropout": None},
            "data": {"path": "/data/mine", "cache": "/scratch/cache", "mirror": False},
            "trainer": {"_target_": "a.b.trainer", "threads": 3},
            "callbacks": {"record": {"_target_": "a.b.Record"}, "samples": {"_target_": "a.b.S", "rows": 3}},
        }
    )
    assert told == {
        "batch_size": 8,
        "resolution": [16, 16],
        "model": {"class": "DCGAN", "betas": [0.0, 0.99]},
        "data": {"path": "mine", "mirror": False},
        "callbacks": {"samples": {"rows": 3}},
    }


def test_pictures_are_throttled_over_the_length_of_the_run(tmp_path):
    logger = Wandb(run=Run("a", tmp_path), config={"kimg": 1.0}, choices={}, pictures=4)
    for step in range(0, 1001, 50):
        logger.log_picture("samples/fakes", GRID, step)
        logger.log_metrics({"loss/generator": 1.0}, step=step)
    logger.finalize("success")
    found = one_record(tmp_path / "a")
    assert grids(found["history"]) == [0, 250, 500, 750, 1000]
    assert len(points(found["history"])) == 21


@pytest.mark.parametrize(
    ("artifacts", "expected"),
    [
        ("none", []),
        ("latest", [("last.ckpt", {"latest", "kimg-2"})]),
        ("best", [("best.ckpt", {"best", "kimg-1"})]),
        (
            "all",
            [
                ("kimg-00001.000.ckpt", {"kimg-1"}),
                ("best.ckpt", {"best", "kimg-1"}),
                ("last.ckpt", {"latest", "kimg-2"}),
            ],
        ),
    ],
)
def test_artifacts_are_read_where_they_are(tmp_path, monkeypatch, artifacts, expected):
    for word in ("DATA", "CACHE"):
        monkeypatch.setenv(f"WANDB_{word}_DIR", str(tmp_path / word))
    run = Run("a", tmp_path)
    run.checkpoints.mkdir(parents=True)
    logger = Wandb(run=run, config={}, choices={}, artifacts=artifacts)
    logger.log_metrics({"loss/generator": 0.5}, step=1)
    # As `Keep` tells of them.
    for name, aliases in (
        ("last.ckpt", ["latest", "kimg-1"]),
        ("kimg-00001.000.ckpt", ["kimg-1"]),
        ("best.ckpt", ["best", "kimg-1"]),
        ("last.ckpt", ["latest", "kimg-2"]),
    ):
        (run.checkpoints / name).write_bytes(aliases[-1].encode() * 100_000)
        logger.log_checkpoint(run.checkpoints / name, aliases)
    logger.finalize("success")
    found = one_record(run.folder)["artifacts"]
    # The client makes the one that was sent last `latest` in any case.
    told = [(Path(files["checkpoint.ckpt"]).name, set(aliases)) for aliases, files in found]
    assert told == [(name, aliases | {"latest"}) for name, aliases in expected]
    assert all(Path(files["checkpoint.ckpt"]).parent == run.checkpoints for _, files in found)
    copies = [p for word in ("DATA", "CACHE") for p in (tmp_path / word).rglob("*") if p.is_file()]
    assert not [path for path in copies if path.stat().st_size >= 100_000]


def start(run: Run, ticks: range, lost: int = 0, **options: Any) -> Wandb:
    """One start of a run, of a tick every 100 images; the last ones are lost before they were saved."""
    table, logger = CSV(run=run), Wandb(run=run, config={"kimg": 1.2}, choices={}, pictures=4, **options)
    images = 100 * (ticks.start - 1)
    table.cut(images)
    logger.replay(table.rows(), images)
    run.samples.mkdir(exist_ok=True)
    for tick in ticks:
        row = {"progress/kimg": tick / 10, "loss/generator": tick + 0.5}
        for each in (table, logger):
            each.log_metrics(row, step=100 * tick)
        # As `Samples` does; a picture that is lost is drawn again.
        (run.samples / f"kimg-{tick / 10:010.3f}.png").write_bytes(png())
        logger.log_picture("samples/fakes", GRID, 100 * tick)
    return logger


def png() -> bytes:
    from io import BytesIO

    from PIL import Image

    stream = BytesIO()
    Image.fromarray(GRID).save(stream, "png")
    return stream.getvalue()


def test_an_offline_run_that_went_on_five_times_is_one_record(tmp_path):
    run = Run("a", tmp_path)
    run.folder.mkdir()
    for begin in (1, 3, 5, 7, 9, 11):  # each start logs a third tick, which the next one does again
        logger = start(run, range(begin, min(begin + 3, 13)))
        logger.finalize("stopped" if begin < 11 else "success")
    found = one_record(run.folder)
    assert found["id"] == run.id
    assert points(found["history"]) == [(100 * tick, tick + 0.5) for tick in range(1, 13)]
    assert points(found["history"]) == table(run.folder)
    assert grids(found["history"]) == [100, 300, 600, 900, 1200]
    assert len(list(run.folder.glob("wandb/superseded/*-offline-run-*/*.wandb"))) == 5


def test_an_earlier_record_stays_until_the_next_one_is_whole(tmp_path):
    run = Run("a", tmp_path)
    run.folder.mkdir()
    start(run, range(1, 4)).finalize("stopped")
    logger = start(run, range(4, 6))
    assert len(list(run.folder.glob("wandb/offline-run-*"))) == 2
    logger._told -= 61  # a minute later
    logger.log_metrics({"loss/generator": 6.5}, step=600)
    assert len(list(run.folder.glob("wandb/offline-run-*"))) == 1
    logger.finalize("success")


@pytest.fixture
def server(monkeypatch, tmp_path) -> Iterator[Server]:
    """A small server, and a client that looks for it."""
    import wandb

    server = Server()
    online(monkeypatch, server.url)
    yield server
    monkeypatch.undo()
    wandb.teardown()  # it would remember the agent's run
    server.open.set()
    server.close()


def online(monkeypatch, url: str) -> None:
    import wandb

    wandb.teardown()  # what the client knows of the environment
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", url)


@pytest.mark.slow
def test_online_off_and_back_is_one_story(tmp_path, server, monkeypatch):
    run = Run("a", tmp_path)
    run.folder.mkdir()
    start(run, range(1, 5)).finalize("stopped")
    assert points(server.history(run.id)) == [(100 * tick, tick + 0.5) for tick in range(1, 5)]
    monkeypatch.setenv("WANDB_MODE", "offline")
    start(run, range(4, 8)).finalize("stopped")
    # The offline record has it all; what the server has was told again, and is put aside.
    assert points(one_record(run.folder)["history"]) == [(100 * t, t + 0.5) for t in range(1, 8)]
    assert not list(run.folder.glob("wandb/run-*"))
    online(monkeypatch, server.url)
    logger = start(run, range(8, 13))
    logger.finalize("success")
    assert points(server.history(run.id)) == [(100 * tick, tick + 0.5) for tick in range(1, 13)]
    assert grids(server.history(run.id)) == [100, 300, 600, 900, 1200]
    assert server.run(run.id)["complete"]
    assert not list(run.folder.glob("wandb/offline-run-*"))
    assert logger.address.startswith(server.url)


@pytest.mark.slow
def test_a_slow_server_is_not_waited_for(tmp_path, server):
    server.seconds = 0.3
    run = Run("a", tmp_path)
    run.folder.mkdir()
    logger = start(run, range(1, 2), finish_timeout_s=10.0)
    began = time.perf_counter()
    for step in range(200, 300):
        logger.log_metrics({"loss/generator": 0.5}, step=step)
    assert time.perf_counter() - began < 0.3
    logger.finalize("success")
    assert len(points(server.history(run.id))) == 101


@pytest.mark.slow
@pytest.mark.parametrize("how", ["silent", "closed"])
def test_a_server_that_is_lost_midway_is_not_waited_for(tmp_path, server, capsys, how):
    run = Run("a", tmp_path)
    run.folder.mkdir()
    logger = start(run, range(1, 4), finish_timeout_s=2.0)
    if how == "silent":
        server.open.clear()
    else:
        server.close()
    worst = 0.0
    for tick in range(4, 13):
        began = time.perf_counter()
        logger.log_metrics({"loss/generator": tick + 0.5}, step=100 * tick)
        worst = max(worst, time.perf_counter() - began)
    began = time.perf_counter()
    logger.finalize("success")
    ending = time.perf_counter() - began
    print(f"{how}: a call took at most {1000 * worst:.1f} ms, the end {ending:.2f} s")
    assert worst < 0.5
    assert 1.9 < ending < 6
    (record,) = run.folder.glob("wandb/run-*")
    assert logger.address == f"wandb sync --include-online {record}"
    assert f"W&B took not all within 2 s. To send it: {logger.address}" in capsys.readouterr().out
    found = wandb_file.read(record / f"run-{run.id}.wandb")
    assert points(found["history"]) == [(100 * tick, tick + 0.5) for tick in range(1, 13)]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["silent", "closed"])
def test_a_server_that_is_away_at_the_start_is_not_waited_for(tmp_path, monkeypatch, capsys, how):
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        if how == "silent":
            port.listen()
        else:
            port.close()
        address = port.getsockname() if how == "silent" else ("127.0.0.1", 9)
        online(monkeypatch, f"http://{address[0]}:{address[1]}")
        run = Run("a", tmp_path)
        run.folder.mkdir()
        began = time.perf_counter()
        logger = start(run, range(1, 13), init_timeout_s=2.0)
        beginning = time.perf_counter() - began
        began = time.perf_counter()
        logger.finalize("success")
        print(f"{how}: the start {beginning:.1f} s, the end {time.perf_counter() - began:.2f} s")
    assert beginning < 6
    assert "W&B is offline: the server did not answer" in capsys.readouterr().out
    assert points(one_record(run.folder)["history"]) == table(run.folder)
    assert not list(run.folder.glob("wandb/run-*"))  # what the attempt left


@pytest.mark.slow
def test_an_artifact_is_not_waited_for_and_ends_no_record(tmp_path, server, capsys):
    run = Run("a", tmp_path)
    run.checkpoints.mkdir(parents=True)
    logger = start(run, range(1, 3), artifacts="all", finish_timeout_s=1.0)
    server.open.clear()
    (run.checkpoints / "kimg-1.ckpt").write_bytes(bytes(1_000_000))
    began = time.perf_counter()
    logger.log_checkpoint(run.checkpoints / "kimg-1.ckpt", ["kimg-1"])
    logger.log_metrics({"loss/generator": 3.5}, step=300)
    assert time.perf_counter() - began < 0.5
    began = time.perf_counter()
    logger.finalize("success")
    assert time.perf_counter() - began < 6
    assert "To send it: wandb sync" in capsys.readouterr().out


CLIENT_THAT_DIES = """
import os, signal, subprocess, sys, time
from pathlib import Path
from kaleidogan.training.logging import Wandb
from kaleidogan.training.runs import Run
logger = Wandb(run=Run("a", Path(sys.argv[1])), config={}, choices={})
logger.log_metrics({"loss/generator": 0.5}, step=1)
found = subprocess.run(["pgrep", "-P", str(os.getpid()), "wandb-core"], capture_output=True).stdout
for child in found.split():
    os.kill(int(child), signal.SIGKILL)
time.sleep(0.5)
for step in range(2, 50):
    logger.log_metrics({"loss/generator": 0.5}, step=step)
logger.finalize("success")
print("the training's end")
"""


@pytest.mark.slow
def test_a_training_outlives_the_client(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CLIENT_THAT_DIES, tmp_path],
        capture_output=True,
        text=True,
        timeout=60,
        env={key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("W&B records no more (") == 1
    assert (
        "training goes on, and metrics.csv has its numbers. To send what there is: wandb sync" in done.stdout
    )
    assert "the training's end" in done.stdout


@pytest.mark.slow
def test_online_by_force_says_that_the_server_is_away(tmp_path, monkeypatch):
    online(monkeypatch, "http://127.0.0.1:9")
    logger = Wandb(run=Run("a", tmp_path), config={}, choices={}, mode="online", init_timeout_s=1.0)
    with pytest.raises(ValueError, match=r"logger\.wandb\.mode=online, but W&B says"):
        logger.log_metrics({"loss/generator": 0.5}, step=1)


def sync(command: str, server: Server) -> None:
    """Send a record with the command that the user is told."""
    environment = {**os.environ, "WANDB_BASE_URL": server.url, "WANDB_API_KEY": "0" * 40}
    for variable in ("WANDB_MODE", "WANDB_SERVICE"):
        environment.pop(variable, None)
    words = [str(Path(sys.executable).with_name("wandb")), *command.split()[1:]]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_what_a_lost_server_did_not_get_is_sent_later(tmp_path, server):
    run = Run("a", tmp_path)
    run.folder.mkdir()
    start(run, range(1, 4)).finalize("stopped")
    logger = start(run, range(4, 7), finish_timeout_s=2.0)
    time.sleep(1)
    server.open.clear()
    for tick in range(7, 13):
        logger.log_metrics({"loss/generator": tick + 0.5}, step=100 * tick)
    logger.finalize("success")
    server.open.set()
    sync(logger.address, server)
    print(server.run(run.id)["offsets"])
    assert points(server.history(run.id)) == [(100 * tick, tick + 0.5) for tick in range(1, 13)]


@pytest.mark.slow
def test_a_run_that_went_on_five_times_is_sent_as_one_story(train, monkeypatch):
    """The real command; the server is this machine's own small one."""
    for tick in range(1, 7):
        run = train("logger=wandb", f"kimg={0.016 * tick}", "logger.wandb.pictures=3")
        if tick < 6:  # a tick that was logged, but never saved
            with (run / "metrics.csv").open() as stream:
                columns = next(csv.reader(stream))
            lost = {"images": "9999", "progress/kimg": "9.999", "loss/generator": "9"}
            with (run / "metrics.csv").open("a") as stream:
                csv.DictWriter(stream, columns).writerow(lost)
    told = table(run)
    assert [images for images, _ in told] == [16 * tick for tick in range(1, 7)]
    assert points(one_record(run)["history"]) == told
    server = Server()
    (record,) = run.glob("wandb/offline-run-*")
    sync(f"wandb sync {record}", server)
    sent = server.history(Run("tiny").id)
    assert points(sent) == told
    assert grids(sent) == grids(one_record(run)["history"])
    assert "samples/reals" in sent[0]
    assert server.run(Run("tiny").id)["jobType"] == "train"
    server.close()


def test_a_preempted_start_says_so(tmp_path):
    run = Run("a", tmp_path)
    run.folder.mkdir()
    start(run, range(1, 3)).finalize("stopped")
    (path,) = run.folder.glob("wandb/offline-run-*/*.wandb")
    wandb_file.read(path)
    kinds = [record.WhichOneof("record_type") for record in wandb_file.records(path)]
    assert "preempting" in kinds
    exits = [r.exit.exit_code for r in wandb_file.records(path) if r.WhichOneof("record_type") == "exit"]
    assert exits == [1]


def test_under_an_agent_the_run_is_the_agents(tmp_path, monkeypatch, server):
    monkeypatch.setenv("WANDB_SWEEP_ID", "sw33p")
    monkeypatch.setenv("WANDB_RUN_ID", "ag3nt1d0")
    run = new_run("dcgan-shapes", tmp_path)
    assert run.name == "dcgan-shapes-ag3nt1d0"
    assert run.id == "ag3nt1d0"
    assert new_run("dcgan-shapes", tmp_path).name == run.name  # the same one again, after a preemption
    logger = start(run, range(1, 3))
    logger.finalize("success")
    assert set(server.runs) == {"ag3nt1d0"}
    assert server.run("ag3nt1d0")["sweep"] == "sw33p"
    monkeypatch.setenv("WANDB_RUN_ID", "an0ther1")
    assert new_run("dcgan-shapes", tmp_path).id == "an0ther1"
    with pytest.raises(ValueError, match="leave name= out of the sweep"):
        _ = run.id


def test_the_sweeps_command_is_one_that_train_understands(folder, monkeypatch):
    """The agent's own code builds the command; ours composes and checks it, at both ends of each range."""
    import yaml
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf
    from wandb.sdk.launch.sweeps import utils as agent

    from kaleidogan.commandline import complete, read_overrides
    from kaleidogan.config import CONF, check

    sweep = yaml.safe_load((Path(__file__).parents[1] / "sweep.yaml").read_text())
    assert sweep["command"][2:] == ["${program}", "${args_no_hyphens}"]
    fixed = {key: p["value"] for key, p in sweep["parameters"].items() if "value" in p}
    searched = {
        key: p.get("values") or [p["min"], p["max"]]
        for key, p in sweep["parameters"].items()
        if "value" not in p
    }
    assert set(searched) == {"model.learning_rate", "model.r1_gamma", "augment.target", "seed"}
    for place in (0, -1):
        values = {**fixed, **{key: ends[place] for key, ends in searched.items()}}
        arguments = agent.create_sweep_command_args({"args": {k: {"value": v} for k, v in values.items()}})
        _, overrides = read_overrides(arguments["args_no_hyphens"])
        with initialize_config_dir(str(CONF), version_base="1.3"):
            composed = OmegaConf.to_container(compose("train", complete(overrides)), resolve=True)
        checked = check(composed)
        for key, value in values.items():
            if key in ("model", "data"):
                continue
            node = checked
            for part in key.split("."):
                node = node[part]
            assert node == ((value, value) if key == "resolution" else value), key
        assert checked["model"]["augment"]["target"] == values["augment.target"]
    assert sweep["metric"]["name"] == fixed["optimized_metric"]
