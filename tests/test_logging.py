"""The loggers, read back from what they wrote."""

import csv

import numpy as np
import pytest

import wandb_file
from kaleidogan.training.logging import CSV, TensorBoard, Wandb
from kaleidogan.training.logging.wandb import has_wandb_key
from kaleidogan.training.runs import Run


def test_csv_takes_new_columns_and_goes_on(tmp_path):
    run = Run("a", tmp_path)
    run.folder.mkdir()
    CSV(run=run).log_metrics({"progress/kimg": 1.0, "loss/generator": 0.5}, step=1000)
    CSV(run=run).log_metrics({"progress/kimg": 2.0, "augment/p": 0.1}, step=2000)
    with (run.folder / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert rows == [
        {"images": "1000", "progress/kimg": "1.0", "loss/generator": "0.5", "augment/p": ""},
        {"images": "2000", "progress/kimg": "2.0", "loss/generator": "", "augment/p": "0.1"},
    ]


def test_wandb_records_offline_without_a_key(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    run = Run("a", tmp_path)
    logger = Wandb(run=run, config={}, choices={})
    logger.log_hyperparams({"kimg": 3, "model": {"width": 4}})
    logger.log_metrics({"progress/kimg": 1.0, "loss/generator": 0.5}, step=1000)
    logger.log_picture("samples/fakes", np.zeros((4, 4, 3), np.uint8), step=1000)
    logger.finalize("success")
    assert "W&B is offline: there is no API key. To send it: wandb sync" in capsys.readouterr().out
    (path,) = run.folder.glob("wandb/offline-run-*/*.wandb")
    found = wandb_file.read(path)
    assert found["id"] == run.id
    assert found["config"]["kimg"] == 3
    assert found["config"]["model"] == {"width": 4}
    assert found["history"][0]["loss/generator"] == 0.5
    assert found["history"][0]["_step"] == 1000
    assert found["history"][0]["samples/fakes._type"] == "image-file"
    assert found["metrics"]["loss/*"] == "progress/kimg"
    assert list(run.folder.glob("wandb/offline-run-*/files/media/images/samples/*.png"))


@pytest.mark.slow
def test_wandb_goes_offline_when_the_server_does_not_answer(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    run = Run("a", tmp_path)
    logger = Wandb(run=run, config={}, choices={}, init_timeout_s=5.0)
    logger.log_metrics({"progress/kimg": 1.0}, step=1000)
    logger.finalize("success")
    assert "W&B is offline: the server did not answer" in capsys.readouterr().out
    assert list(run.folder.glob("wandb/offline-run-*/*.wandb"))


def test_a_key_is_found_where_wandb_looks(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert not has_wandb_key()
    (tmp_path / "netrc").write_text("machine wandb.example login user password secret\n")
    (tmp_path / "netrc").chmod(0o600)
    assert not has_wandb_key()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example")
    assert has_wandb_key()
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert has_wandb_key()


def test_tensorboard_writes_events(tmp_path):
    run = Run("a", tmp_path)
    logger = TensorBoard(run=run)
    logger.log_hyperparams({"kimg": 3})
    logger.log_metrics({"loss/generator": 0.5}, step=1000)
    logger.log_picture("samples/fakes", np.zeros((4, 4, 3), np.uint8), step=1000)
    logger.finalize("success")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.folder / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss/generator")] == [(1000, 0.5)]
    assert events.Images("samples/fakes")


def test_tensorboard_drops_what_comes_again(tmp_path):
    run = Run("a", tmp_path)
    first = TensorBoard(run=run)
    first.log_metrics({"loss/generator": 0.5}, step=1000)
    first.log_metrics({"loss/generator": 0.5}, step=2000)
    first.finalize("success")
    second = TensorBoard(run=run)
    second.cut(1000)
    second.log_metrics({"loss/generator": 0.25}, step=2000)
    second.log_metrics({"loss/generator": 0.25}, step=3000)
    second.finalize("success")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.folder / "tensorboard"))
    events.Reload()
    points = [(event.step, event.value) for event in events.Scalars("loss/generator")]
    assert points == [(1000, 0.5), (2000, 0.25), (3000, 0.25)]


@pytest.mark.parametrize("option", ["wandb", "csv", "tensorboard", "none"])
def test_every_logger_option_trains(train, option):
    run = train(f"logger={option}", name=option)
    assert (run / "metrics.csv").exists() == (option != "none")
    if option == "wandb":
        found = wandb_file.read(next(run.glob("wandb/offline-run-*/*.wandb")))
        kimg = [row["progress/kimg"] for row in found["history"] if "loss/generator" in row]
        assert kimg == [0.016, 0.032, 0.048]
        assert {f"samples/{kind}._type" for kind in ("reals", "fakes", "reals_and_samples")} <= {
            key for row in found["history"] for key in row
        }
        assert found["config"]["model"]["width"] == 4
        assert len(found["config"]["data_fingerprint"]) == 64
