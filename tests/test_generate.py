"""`generate.py`, on a run that `train.py` made."""

import subprocess
import sys

import pytest
from PIL import Image

from conftest import write_conditions
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


@pytest.fixture
def refuse(capsys):
    """Generate, which is refused; gives what is said."""

    def start(*overrides: str) -> str:
        with pytest.raises(SystemExit):
            generate(*overrides)
        return capsys.readouterr().err

    return start


def test_a_class_by_number_or_name(train, refuse):
    run = train("model.c_dim=3", model="stylegan2_ada")
    generate("seeds=0-1", "label=1", "out=number")
    generate("seeds=0-1", "label=b", "out=name")
    generate("seeds=0-1", "out=turns")
    one, other, turn = (Image.open(f"{out}/seed0001.png").tobytes() for out in ("number", "name", "turns"))
    assert one == other == turn
    assert Image.open("number/seed0000.png").tobytes() != Image.open("turns/seed0000.png").tobytes()
    assert run.name == "tiny"
    assert "label=x: the model was trained with classes 0 to 2: a, b, c" in refuse("label=x")
    assert "label=3: the model was trained with classes 0 to 2: a, b, c" in refuse("label=3")
    assert "the model was trained with classes 0 to 2" in refuse("condition.year=1")


def test_numbers_by_name(train, folder, refuse):
    write_conditions(folder / "numbers", [(k % 2, 1800 + 10 * k) for k in range(12)])
    train("model.c_dim=2", "data.path=numbers", model="stylegan2_ada")
    generate("seeds=0", "out=mean")
    generate("seeds=0", "condition.year=1855", "out=given")  # which is the mean
    generate("seeds=0", "condition.year=1900", "out=late")
    generate("seeds=0", "condition={year: 1900, oil: 1}", "out=both")
    mean, given, late, both = (
        Image.open(f"{out}/seed0000.png").tobytes() for out in ("mean", "given", "late", "both")
    )
    assert mean == given
    assert len({mean, late, both}) == 3
    assert "condition: there is no 'yaer'; there are oil, year" in refuse("condition.yaer=1900")
    assert "label=1: the model was trained on numbers; set condition.oil=1" in refuse("label=1")


def test_generating_waits_for_neither_lightning_nor_wandb():
    code = (
        "import sys, kaleidogan.art.grid, kaleidogan.art.generate;"
        "sys.exit(bool({'pytorch_lightning', 'wandb', 'lightning_fabric'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
