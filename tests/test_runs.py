"""A run's folder."""

import pytest

from kaleidogan.training.runs import Run, find_checkpoints, git_commit, new_name, newest_checkpoint


def test_names_count_up(tmp_path):
    assert new_name("dcgan-art", tmp_path) == "dcgan-art-001"
    (tmp_path / "dcgan-art-009").mkdir()
    (tmp_path / "dcgan-art-x").mkdir()
    assert new_name("dcgan-art", tmp_path) == "dcgan-art-010"


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a b"])
def test_a_name_stays_a_folder(name):
    with pytest.raises(ValueError, match="may hold only letters"):
        Run(name)


def test_the_id_stays_over_all_starts(tmp_path):
    first = Run("a", tmp_path).id
    assert Run("a", tmp_path).id == first
    assert Run("b", tmp_path).id != first


def test_where_to_go_on(tmp_path):
    run = Run("a", tmp_path)
    assert run.checkpoint_to_resume("auto") == []
    run.checkpoints.mkdir(parents=True)
    run.previous.touch()
    run.last.touch()
    assert run.checkpoint_to_resume("auto") == [run.last, run.previous]
    with pytest.raises(ValueError, match="has a checkpoint already"):
        run.checkpoint_to_resume("never")
    assert Run("b", tmp_path).checkpoint_to_resume(str(run.folder)) == [run.last, run.previous]
    with pytest.raises(FileNotFoundError, match="no checkpoint at 'nowhere'"):
        run.checkpoint_to_resume("nowhere")
    assert newest_checkpoint(tmp_path) == run.last
    assert find_checkpoints(run.previous) == [run.previous]


def test_each_start_is_written_down(tmp_path):
    run = Run("a", tmp_path)
    run.record_start("kimg: 1\n", ["kimg=1"])
    run.record_start("kimg: 2\n", [])
    assert (run.folder / "config.yaml").read_text() == "kimg: 2\n"
    first, second = (run.folder / "starts.log").read_text().splitlines()
    assert first.endswith("kimg=1")
    assert second.endswith("(no overrides)")


def test_outside_of_git_there_is_no_commit(folder):
    assert git_commit() is None
