"""Checkpoints on disk."""

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from kaleidogan.sampling import latents, load_generator, synthesize
from kaleidogan.training import checkpoint
from kaleidogan.training.checkpoint import CheckpointError, load, load_newest, save, sweep

CONTENT = dict.fromkeys(checkpoint.FIELDS, 0)


def test_what_is_saved_is_loaded(tmp_path):
    save(tmp_path / "a.ckpt", {**CONTENT, "weights": torch.arange(3.0), "about": {"seed": 7}})
    back = load(tmp_path / "a.ckpt")
    assert torch.equal(back["weights"], torch.arange(3.0))
    assert back["about"] == {"seed": 7}
    assert back["format"] == checkpoint.FORMAT
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]


def test_pytorch_reads_a_sealed_file_too(tmp_path):
    save(tmp_path / "a.ckpt", {"weights": torch.arange(3.0)})
    for mmap in (False, True):
        back = torch.load(tmp_path / "a.ckpt", weights_only=True, mmap=mmap)
        assert torch.equal(back["weights"], torch.arange(3.0))


def test_the_one_before_is_kept_and_taken_when_the_last_is_damaged(tmp_path, capsys):
    last, previous = tmp_path / "last.ckpt", tmp_path / "previous.ckpt"
    for number in range(3):
        save(last, {**CONTENT, "number": number}, previous=previous)
    assert (load(last)["number"], load(previous)["number"]) == (2, 1)
    assert load_newest([last, previous])[0] == last
    last.write_bytes(last.read_bytes()[:50])
    path, content = load_newest([last, previous])
    assert (path, content["number"]) == (previous, 1)
    assert f"taking '{previous}' instead" in capsys.readouterr().out
    previous.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"last.ckpt.*previous.ckpt"):
        load_newest([last, previous])
    assert load_newest([tmp_path / "none.ckpt"]) is None


@pytest.fixture
def sealed(tmp_path):
    """A checkpoint's path and bytes."""
    save(tmp_path / "a.ckpt", {**CONTENT, "weights": torch.randn(300)})
    return tmp_path / "a.ckpt", (tmp_path / "a.ckpt").read_bytes()


def test_a_file_that_is_cut_anywhere_is_refused(sealed):
    path, whole = sealed
    for part in range(50):
        path.write_bytes(whole[: part * len(whole) // 50])
        with pytest.raises(CheckpointError, match=r"cut short|damaged"):
            load(path)


def test_any_flipped_bit_is_noticed(sealed):
    path, whole = sealed
    rng = random.Random(0)
    for _ in range(200):
        flipped = bytearray(whole)
        flipped[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        with pytest.raises(CheckpointError, match=r"cut short|damaged"):
            load(path)


@pytest.mark.parametrize("field", sorted(checkpoint.FIELDS))
def test_a_missing_field_is_named(tmp_path, field):
    save(tmp_path / "a.ckpt", {key: 0 for key in CONTENT if key != field})
    with pytest.raises(CheckpointError, match=f"lacks {field}"):
        load(tmp_path / "a.ckpt")


def test_it_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, real=real, name=name: (calls.append(name), real(*a))[1])
    save(tmp_path / "a.ckpt", CONTENT)
    assert calls == ["fsync", "replace", "fsync"]


def test_a_failed_save_leaves_the_one_before(tmp_path, monkeypatch):
    save(tmp_path / "a.ckpt", {**CONTENT, "number": 1})
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OSError, match=r"the disk is full: '.*a\.ckpt' needs"):
        save(tmp_path / "a.ckpt", {**CONTENT, "number": 2})
    assert load(tmp_path / "a.ckpt")["number"] == 1
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.slow
def test_a_full_disk_leaves_the_one_before_and_is_named(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk]).returncode:
        pytest.xfail("mounting a small file system needs root")
    try:
        last, previous = disk / "last.ckpt", disk / "previous.ckpt"
        save(last, {**CONTENT, "number": 1, "weights": torch.zeros(2**20)}, previous=previous)
        with pytest.raises(OSError, match=r"disk is full: '.*last\.ckpt' needs 8,388,608 bytes"):
            save(last, {**CONTENT, "number": 2, "weights": torch.zeros(2**21)}, previous=previous)
        assert load(last)["number"] == 1
        assert [path.name for path in disk.iterdir()] == ["last.ckpt"]
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"'.*file/sub/a\.ckpt' cannot be written"):
        save(tmp_path / "file" / "sub" / "a.ckpt", CONTENT)


def test_what_is_no_checkpoint_is_refused(tmp_path):
    path = tmp_path / "a.ckpt"
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        load(path)
    path.write_text("hello")
    with pytest.raises(CheckpointError, match="cut short, or is not a checkpoint"):
        load(path)
    torch.save({"weights": 1}, path)
    with pytest.raises(CheckpointError, match="not a checkpoint of this project"):
        load(path)
    save(path, {**CONTENT, "format": 99})
    with pytest.raises(CheckpointError, match="format 99"):
        load(path)


class Evil:
    """Makes a folder when it is unpickled."""

    def __reduce__(self):
        return (os.mkdir, ("pwned",))


def test_no_code_in_a_file_is_run(folder):
    save(folder / "a.ckpt", {**CONTENT, "evil": Evil()})
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(folder / "a.ckpt")
    assert not (folder / "pwned").exists()


GOLDEN = Path(__file__).parent / "golden" / "checkpoint_format1.ckpt"


def test_a_checkpoint_of_format_1_is_read_and_goes_on(train):
    """Written by version 0.1.0 for a 16 px DCGAN of width 2 at 0.016 kimg; it must load for ever."""
    saved = load(GOLDEN)
    assert saved["state_dict"]["_extra_state"] == {"images_seen": 16, "batches_seen": 2}
    trained = load_generator([GOLDEN])
    picture = next(synthesize(trained.generator, latents([7], 8)))
    assert picture.mean().item() == pytest.approx(0.0, abs=0.2)
    assert picture.shape == (3, 16, 16)
    run = train(f"resume={GOLDEN}", "model.width=2", "allow_changes=[data]")
    assert load(run / "checkpoints" / "last.ckpt")["state_dict"]["_extra_state"]["images_seen"] == 48


def test_what_killed_saves_left_is_swept(tmp_path):
    save(tmp_path / "last.ckpt", CONTENT)
    (tmp_path / ".last.ckpt.123.tmp").write_bytes(b"half")
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def keep_saving(folder, report: int) -> None:
    """Save numbered checkpoints until killed, and report each number once its save is over."""
    weights = torch.zeros(2**16)
    for number in range(10**6):
        save(
            folder / "last.ckpt",
            {**CONTENT, "number": number, "weights": weights},
            previous=folder / "p.ckpt",
        )
        os.write(report, f"{number}\n".encode())


@pytest.mark.parametrize("kills", [20, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_after_a_kill_the_newest_is_the_last_reported_or_the_one_after(tmp_path, kills):
    torch.set_num_threads(1)
    rng = random.Random(1)
    for _ in range(kills):
        folder = tmp_path / "run"
        folder.mkdir()
        reports, report = os.pipe()
        child = os.fork()
        if child == 0:
            keep_saving(folder, report)
        os.close(report)
        time.sleep(0.02 + rng.random() * 0.05)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(reports) as stream:
            told = [int(line) for line in stream.read().splitlines()]
        found = load_newest([folder / "last.ckpt", folder / "p.ckpt"])
        assert (found[1]["number"] if found else -1) - (told[-1] if told else -1) in (0, 1)
        shutil.rmtree(folder)
