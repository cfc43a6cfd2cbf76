"""Going on, with what may change and what may not."""

import csv
from pathlib import Path

import pytest
import torch

from conftest import write_set
from kaleidogan.training import checkpoint, resume


def test_what_enters_the_arithmetic_is_a_change():
    before = {"kimg": 1, "model": {"width": 4, "kimg": 1}, "data": {"mirror": False, "path": "a"}}
    now = {"kimg": 2, "model": {"width": 8, "kimg": 2}, "data": {"mirror": True, "path": "b"}}
    assert resume.changes(before, now) == {"data.mirror": (False, True), "model.width": (4, 8)}


def failing(train, capsys, *settings: str) -> str:
    with pytest.raises(SystemExit) as end:
        train(*settings)
    assert end.value.code == 1
    return capsys.readouterr().err


def test_changed_settings_are_listed_and_refused_unless_allowed(train, capsys):
    train()
    said = failing(train, capsys, "kimg=0.064", "model.learning_rate=1e-3", "batch_size=4")
    assert "model.learning_rate: 0.0002 -> 0.001" in said
    assert "  batch_size: 8 -> 4" in said
    assert "model.batch_size" not in said
    assert "allow_changes=[batch_size,model.learning_rate]" in said
    run = train("kimg=0.064", "model.learning_rate=1e-3", "allow_changes=[model.learning_rate]")
    saved = checkpoint.load(run / "checkpoints" / "last.ckpt")
    assert saved["state_dict"]["_extra_state"]["images_seen"] == 64
    assert all(optimizer["param_groups"][0]["lr"] == 1e-3 for optimizer in saved["optimizers"])


def test_changed_pictures_are_refused_unless_allowed(train, capsys, folder):
    train()
    write_set(folder / "others", count=21)
    assert "trained on other pictures" in failing(train, capsys, "kimg=0.064", "data.path=others")
    train("kimg=0.064", "data.path=others", "allow_changes=[data]")


def test_a_checkpoint_of_another_model_is_refused(train, capsys):
    train()
    said = failing(train, capsys, "kimg=0.064", "model.width=8")
    assert "model.width: 4 -> 8" in said


def test_a_run_goes_on_from_the_checkpoint_before_when_the_last_is_damaged(train, capsys):
    run = train()
    last = run / "checkpoints" / "last.ckpt"
    whole = checkpoint.load(last)
    data = bytearray(last.read_bytes())
    data[len(data) // 2] ^= 1
    last.write_bytes(data)
    train()
    said = capsys.readouterr().out
    assert "its checksum does not match; taking" in said
    assert "going on from 'runs/tiny/checkpoints/previous.ckpt' at 0.032 kimg" in said
    again = checkpoint.load(last)
    for key, value in whole["state_dict"].items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, again["state_dict"][key]), key


def rows(run) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as stream:
        found = list(csv.DictReader(stream))
    return [{k: v for k, v in row.items() if not k.startswith(("speed/", "memory/"))} for row in found]


def test_points_after_the_checkpoint_are_cut(train):
    whole = rows(train(name="whole"))
    train("kimg=0.032", name="parts")
    with Path("runs/parts/metrics.csv").open("a") as stream:
        stream.write("48,0.048,9,9,9\n" + "64,0.0")
    assert rows(train(name="parts")) == whole


def test_another_number_of_threads_is_said_aloud(train, capsys):
    train("trainer.threads=2")
    train("kimg=0.064", "trainer.threads=1")
    assert "processor threads: 2 in the checkpoint, 1 now" in capsys.readouterr().out


def test_the_best_and_every_so_many_are_kept(train):
    run = train("optimized_metric=loss/discriminator", "checkpoint_kimg=0.016")
    names = {path.name for path in (run / "checkpoints").iterdir()}
    assert {"best.ckpt", "last.ckpt", "previous.ckpt"} <= names
    losses = [float(row["loss/discriminator"]) for row in rows(run)]
    best = checkpoint.load(run / "checkpoints" / "best.ckpt")
    assert best["callbacks"]["Keep"]["best"] == pytest.approx(min(losses))


@pytest.mark.parametrize("change", ["augment=none", "augment=diffaugment", "model.path_length_weight=0"])
def test_what_steers_may_change_when_it_is_allowed(train, capsys, change):
    train("kimg=0.016", model="stylegan2_ada")
    key = change.partition("=")[0]
    train("kimg=0.032", change, f"allow_changes=[{key},model.augment]", model="stylegan2_ada")
    assert "is left behind, since settings were allowed to change" in capsys.readouterr().out
