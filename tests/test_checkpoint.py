"""Checkpoints on disk."""

import os

import pytest
import torch

from kaleidogan.training import checkpoint
from kaleidogan.training.checkpoint import CheckpointError, load, load_newest, save


def test_what_is_saved_is_loaded(tmp_path):
    save(tmp_path / "a.ckpt", {"weights": torch.arange(3.0), "about": {"seed": 7}})
    back = load(tmp_path / "a.ckpt")
    assert torch.equal(back["weights"], torch.arange(3.0))
    assert back["about"] == {"seed": 7}
    assert back["format"] == checkpoint.FORMAT
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]


def test_the_one_before_is_kept(tmp_path):
    last, previous = tmp_path / "last.ckpt", tmp_path / "previous.ckpt"
    for number in range(3):
        save(last, {"number": number}, previous=previous)
    assert (load(last)["number"], load(previous)["number"]) == (2, 1)
    assert load_newest([last, previous])[0] == last
    last.write_bytes(last.read_bytes()[:50])
    path, content = load_newest([last, previous])
    assert (path, content["number"]) == (previous, 1)
    previous.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"last.ckpt.*previous.ckpt"):
        load_newest([last, previous])
    assert load_newest([tmp_path / "none.ckpt"]) is None


def test_a_failed_save_leaves_the_one_before(tmp_path, monkeypatch):
    save(tmp_path / "a.ckpt", {"number": 1})
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OSError, match="No space"):
        save(tmp_path / "a.ckpt", {"number": 2})
    assert load(tmp_path / "a.ckpt")["number"] == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_what_is_no_checkpoint_is_refused(tmp_path):
    path = tmp_path / "a.ckpt"
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        load(path)
    path.write_text("hello")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(path)
    torch.save({"weights": 1}, path)
    with pytest.raises(CheckpointError, match="not a checkpoint of this project"):
        load(path)
    torch.save({"format": 99}, path)
    with pytest.raises(CheckpointError, match="format 99"):
        load(path)


class Evil:
    """Makes a folder when it is unpickled."""

    def __reduce__(self):
        return (os.mkdir, ("pwned",))


def test_no_code_in_a_file_is_run(folder):
    torch.save({"format": 1, "evil": Evil()}, folder / "a.ckpt")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(folder / "a.ckpt")
    assert not (folder / "pwned").exists()
