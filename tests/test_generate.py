"""`generate.py`, on a run that `train.py` made."""

import subprocess
import sys

import pytest
from PIL import Image

from kaleidogan import cli
from kaleidogan.training.checkpoint import digest


def generate(*overrides: str) -> None:
    cli.run("generate", [*overrides, "device=cpu"], program="generate.py")


def test_pictures_of_the_newest_run(train, folder):
    run = train()
    generate("seeds=0-4,17")
    made = run / "generated"
    assert sorted(path.name for path in made.iterdir()) == [
        "grid.png",
        *(f"seed{seed:04d}.png" for seed in (0, 1, 2, 3, 4, 17)),
    ]
    picture = Image.open(made / "seed0017.png")
    assert picture.size == (16, 16)
    assert picture.text["seed"] == "17"
    assert picture.text["checkpoint"] == digest(run / "checkpoints" / "last.ckpt")
    generate("seeds=17", "checkpoint=runs/tiny/checkpoints/last.ckpt", "out=a=b, c")
    assert Image.open(folder / "a=b, c" / "seed0017.png").tobytes() == picture.tobytes()


def test_the_checkpoint_before_is_taken_when_the_last_is_damaged(train, capsys):
    run = train()
    (run / "checkpoints" / "last.ckpt").write_bytes(b"")
    generate("seeds=0")
    assert "previous.ckpt' at 0.032 kimg" in capsys.readouterr().out


def test_without_a_run_the_remedy_is_named(folder, capsys):
    with pytest.raises(SystemExit):
        generate()
    assert "train one first, or set checkpoint=FILE" in capsys.readouterr().err


def test_generating_waits_for_neither_lightning_nor_wandb():
    code = (
        "import sys, kaleidogan.art.grid, kaleidogan.art.generate;"
        "sys.exit(bool({'pytorch_lightning', 'wandb', 'lightning_fabric'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
