"""The installed package: what is in the wheel works from any folder."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_commands_run_from_any_folder_of_an_installed_wheel(tmp_path):
    subprocess.run(["uv", "build", "--quiet", "--wheel", "--out-dir", tmp_path, ROOT], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    code = "import sys, kaleidogan; from kaleidogan.cli import main; print(kaleidogan.__file__); main()"

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=elsewhere,
            env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert str(tmp_path / "site") in done.stdout
        return done.stdout

    assert "first_light" in run("train", "--help")
    tiny = ("resolution=16", "batch_size=4", "kimg=0.008", "tick_kimg=0.004", "model.width=2", "logger=csv")
    run("train", "model=dcgan", "data.maker.num_images=8", *tiny, "name=a", "trainer=cpu")
    assert "2 pictures and grid.png" in run("generate", "seeds=0-1")
    run("prepare", "source=runs/a/generated", "out=set", "resolution=16")
    assert (elsewhere / "set" / "index.json").exists()
