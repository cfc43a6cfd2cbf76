"""The real command, from the configuration to the pictures, on tiny settings."""

import csv
import os
import signal
from pathlib import Path

import pytest
import torch

from conftest import SMALL, TINY, small, write_set
from kaleidogan import cli
from kaleidogan.commandline import options_of
from kaleidogan.data.reader import Reader
from kaleidogan.training import checkpoint
from kaleidogan.training.gan import GAN
from kaleidogan.training.logging import CSV
from test_configs import composed


def test_a_run_leaves_samples_metrics_and_a_checkpoint(train):
    run = train()
    names = {path.name for path in (run / "samples").iterdir()}
    grids = {f"kimg-00000{kimg}.png" for kimg in ("0.000", "0.016", "0.032", "0.048")}
    assert names == {*grids, "reals.png", "reals-and-samples.png", "spectrum.png"}
    with (run / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["progress/kimg"]) for row in rows] == [0.016, 0.032, 0.048]
    assert {"loss/discriminator", "loss/generator", "logit/real", "logit/fake"} <= set(rows[0])
    saved = checkpoint.load(run / "checkpoints" / "last.ckpt")
    assert saved["state_dict"]["_extra_state"] == {"images_seen": 48, "batches_seen": 6}
    assert (
        checkpoint.load(run / "checkpoints" / "previous.ckpt")["state_dict"]["_extra_state"]["images_seen"]
        == 32
    )


PERIODS = ["model.r1_every=2", "model.path_length_every=3", "augment.interval=2", "augment.kimg=0.1"]


def equal(one, other):
    assert one.keys() == other.keys()
    return all(torch.equal(one[key], other[key]) for key in one if isinstance(one[key], torch.Tensor))


# Batches of 8: the penalties' and ADA's periods put a step of each right before and right after a cut.
RESUMED = [
    ("dcgan", ["data.num_workers=0"], 24),
    ("dcgan", ["data.num_workers=2"], 24),
    ("stylegan2_ada", PERIODS, 24),
    *(pytest.param("stylegan2_ada", PERIODS, images, marks=pytest.mark.slow) for images in (8, 16, 32, 40)),
    ("stylegan2_ada", [*PERIODS, "trainer.precision=bf16-mixed", "model.c_dim=3"], 24),
    ("stylegan2_ada", ["augment=diffaugment", "model.blur_sigma=2", "model.blur_fade_kimg=0.04"], 24),
    ("dcgan", ["augment=ada", "augment.interval=2", "augment.kimg=0.1"], 24),
    ("swagan", [*PERIODS, "model.upsampling=neural"], 24),
    ("progan", ["growth=schedule", "growth.rule.stabilise_kimg=0.016", "growth.fade_kimg=0.024"], 16),
]


@pytest.mark.parametrize(("model", "settings", "images"), RESUMED)
def test_a_resumed_run_equals_an_uninterrupted_one(train, model, settings, images):
    whole = checkpoint.load(train(*settings, name="whole", model=model) / "checkpoints" / "last.ckpt")
    train(*settings, f"kimg={images / 1000}", name="parts", model=model)
    parts = checkpoint.load(train(*settings, name="parts", model=model) / "checkpoints" / "last.ckpt")
    assert equal(whole["state_dict"], parts["state_dict"])
    for one, other in zip(whole["optimizers"], parts["optimizers"], strict=True):
        assert all(equal(one["state"][key], other["state"][key]) for key in one["state"])
    assert torch.equal(whole["random"][0]["torch"], parts["random"][0]["torch"])


def test_a_run_that_has_reached_its_length_says_how_to_go_on(train, capsys):
    run = train()
    before = (run / "checkpoints" / "last.ckpt").read_bytes()
    train()
    assert "has reached its 0.048 kimg; to go on, set kimg=0.096" in capsys.readouterr().out
    assert (run / "checkpoints" / "last.ckpt").read_bytes() == before


def test_other_latents_follow_from_another_seed(train):
    one, other = (
        checkpoint.load(train(f"seed={s}", name=f"s{s}") / "checkpoints" / "last.ckpt") for s in (1, 2)
    )
    assert not equal(one["state_dict"], other["state_dict"])


@pytest.mark.parametrize(
    "settings",
    [
        ("resolution=[16,32]", "channels=4"),
        ("channels=1", "accumulate=4", "model.r1_gamma=1", "model.r1_every=2"),
        ("model.d_steps=2", "trainer.precision=bf16-mixed", "model.discriminator_norm=none"),
    ],
)
def test_other_settings_on_procedural_pictures(folder, settings):
    base = [
        *TINY,
        *small("dcgan"),
        "model=dcgan",
        "data=procedural",
        "data.maker.num_images=20",
        "data.mirror=true",
    ]
    cli.run("train", [*base, *settings, "logger=csv", "name=a"], program="train.py")
    saved = checkpoint.load(folder / "runs" / "a" / "checkpoints" / "last.ckpt")
    weights = [value for key, value in saved["state_dict"].items() if key.startswith("average.")]
    assert all(weight.isfinite().all() for weight in weights if isinstance(weight, torch.Tensor))
    assert saved["state_dict"]["_extra_state"]["images_seen"] == 48
    assert (folder / "runs" / "a" / "samples" / "reals-and-samples.png").exists()


def test_an_unequal_accumulation_is_refused(train, capsys):
    with pytest.raises(SystemExit):
        train("accumulate=3")
    assert "accumulate=3 does not divide batch_size=8" in capsys.readouterr().err


def test_a_sweep_is_a_run_for_each_combination(train, folder):
    write_set(folder / "set")
    settings = [
        *TINY,
        *small("dcgan"),
        "model=dcgan",
        "data=shards",
        "data.path=set",
        "logger=csv",
        "callbacks=none",
    ]
    settings.remove("callbacks.samples.rows=3")
    cli.run("train", ["-m", *settings, "seed=0,1", "kimg=0.016"], program="train.py")
    assert {path.name for path in (folder / "runs").glob("[!.]*")} == {f"dcgan-set-seed={s}" for s in (0, 1)}


def test_the_metric_that_a_sweep_optimises(train, capsys):
    with pytest.raises(SystemExit):
        train("optimized_metric=loss/generatr")
    assert "did you mean loss/generator?" in capsys.readouterr().err


def test_a_bare_name_goes_on_with_the_settings_that_the_run_had(train):
    train("model.learning_rate=1e-3")
    cli.run("train", ["name=tiny", "kimg=0.064"], program="train.py")
    saved = checkpoint.load(Path("runs/tiny/checkpoints/last.ckpt"))
    assert saved["state_dict"]["_extra_state"]["images_seen"] == 64
    assert saved["hyper_parameters"]["learning_rate"] == 1e-3


def test_a_named_sweep_is_a_run_for_each_job_and_a_failed_one_stops_no_other(train, capsys):
    write_set(Path("set"))
    settings = [
        *TINY,
        *small("dcgan"),
        "model=dcgan",
        "data=shards",
        "data.path=set",
        "logger=csv",
        "kimg=0.016",
        "name=s",
    ]
    with pytest.raises(SystemExit):
        cli.run("train", ["-m", *settings, "batch_size=8,-1,4"], program="train.py")
    assert "Error in job 1: batch_size=-1" in capsys.readouterr().err
    assert {path.name for path in Path("runs").glob("s-*/checkpoints")} == {"checkpoints"}
    assert {path.name for path in Path("runs").glob("s-*")} == {"s-batch_size=8", "s-batch_size=4"}


@pytest.mark.parametrize("option", options_of("experiment"))
def test_every_experiment_trains(folder, option):
    config = composed("train", f"experiment={option}")
    model = config["model"]
    narrow = [f"model.{key}={SMALL[key]}" for key in ("channel_max", "w_dim", "latent_dim") if key in model]
    # The procedural set: the others' pictures are the user's.
    settings = [f"experiment={option}", *TINY, *narrow, "data.maker.num_images=20", "logger=csv", "name=a"]
    settings += ["growth.start=base"] if config["growth"] else []
    cli.run("train", settings, program="train.py")
    assert (folder / "runs" / "a" / "samples" / "reals-and-samples.png").exists()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["model.resolution=32"], "the model makes pictures of (3, 32, 32), the data has (3, 16, 16)"),
        (["trainer.accelerator=cuda"], "PyTorch finds no CUDA GPU"),
        (["kimg=inf"], "kimg=inf: input should be a finite number"),
        (["data.path=nowhere"], "no data set in 'nowhere'"),
        (["data.path=nowhere", "data=shapes"], "no data set in 'nowhere'"),
        (["resolution=32"], "set resolution=[16,16]"),
        (["channels=1"], "set channels=3"),
        (["batch_size=32"], "has 20 pictures, fewer than one batch of 32"),
        (["trainer.folder=x"], "there is no key trainer.folder"),
    ],
)
def test_what_does_not_fit_is_said_on_one_screen(train, capsys, settings, says):
    if "trainer.accelerator=cuda" in settings and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit):
        train(*settings)
    said = capsys.readouterr().err
    assert says in said
    assert "Traceback" not in said


def test_a_damaged_picture_is_named(train, capsys):
    train("kimg=0.016")
    shard = Path("set/000001.tar")
    data = bytearray(shard.read_bytes())
    for place in range(512 + 30, len(data), 1024):
        data[place] ^= 255
    shard.write_bytes(data)
    for workers in (0, 2):
        with pytest.raises(SystemExit):
            train(f"data.num_workers={workers}", name=f"w{workers}")
        assert "in set/000001.tar" in capsys.readouterr().err


def test_running_out_of_memory_names_what_to_lower(train, capsys, monkeypatch):
    def step(self, reals, optimizer):
        torch.empty(2**60)

    monkeypatch.setattr(GAN, "discriminator_step", step)
    with pytest.raises(SystemExit):
        train()
    said = capsys.readouterr().err
    assert "out of memory" in said
    assert "lower batch_size" in said


@pytest.mark.slow
def test_a_data_worker_that_dies_is_named(train, capsys, monkeypatch):
    main = os.getpid()
    read = Reader.read

    def die(self, number, out=None):
        if os.getpid() != main:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(self, number, out)

    monkeypatch.setattr(Reader, "read", die)
    with pytest.raises(SystemExit):
        train("data.num_workers=1")
    assert "a data worker died" in capsys.readouterr().err


def test_a_disk_that_fills_up_in_between_is_named(train, capsys, monkeypatch):
    def write(self, metrics, step=None):
        if step > 16:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(CSV, "log_metrics", write)
    with pytest.raises(SystemExit):
        train()
    assert "the disk is full: 'runs/tiny' has" in capsys.readouterr().err
    saved = checkpoint.load(Path("runs/tiny/checkpoints/last.ckpt"))
    assert saved["state_dict"]["_extra_state"]["images_seen"] == 16
