"""A run's folder."""

import pytest

from kaleidogan.training.runs import (
    Run,
    find_checkpoints,
    git_commit,
    new_run,
    newest_checkpoints,
    unnamed_run,
)


def test_names_count_up(tmp_path):
    assert new_run("dcgan-art", tmp_path).name == "dcgan-art-001"
    (tmp_path / "dcgan-art-009").mkdir()
    (tmp_path / "dcgan-art-x").mkdir()
    assert new_run("dcgan-art", tmp_path).folder == tmp_path / "dcgan-art-010"
    assert new_run("dcgan-art", tmp_path).name == "dcgan-art-011"


def test_a_requeued_job_finds_the_run_that_it_began(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    first = unnamed_run("dcgan-art", ["seed=1"], tmp_path)
    identity = first.id
    assert unnamed_run("dcgan-art", ["seed=1"], tmp_path).name == "dcgan-art-002"  # not requeued: a new one
    second = unnamed_run("dcgan-art", ["seed=2"], tmp_path)  # a job may train one after the other
    (tmp_path / "dcgan-art-009").mkdir()
    (tmp_path / "dcgan-art-009" / "state.json").write_text("{")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert unnamed_run("dcgan-art", ["seed=2"], tmp_path).name == second.name
    assert unnamed_run("dcgan-art", ["seed=3"], tmp_path).name == "dcgan-art-010"
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
    assert unnamed_run("dcgan-art", ["seed=2"], tmp_path).name == "dcgan-art-011"
    assert Run(first.name, tmp_path).id == identity


def test_any_folder_gives_a_name(tmp_path):
    assert new_run("dcgan-my Gem\u00e4lde (2)", tmp_path).name == "dcgan-my-Gemalde-2-001"
    assert new_run("\u753b", tmp_path).name == "run-001"


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
    other = Run("b", tmp_path)
    assert other.checkpoint_to_resume(str(run.folder)) == [run.last, run.previous]
    other.checkpoints.mkdir(parents=True)
    other.last.touch()
    assert other.checkpoint_to_resume(str(run.folder)) == [other.last]  # a start that is repeated
    with pytest.raises(FileNotFoundError, match="no checkpoint at 'nowhere'"):
        Run("c", tmp_path).checkpoint_to_resume("nowhere")
    other.last.unlink()
    assert newest_checkpoints(tmp_path) == [run.last, run.previous]
    assert find_checkpoints(run.previous) == [run.previous]


def test_each_start_is_written_down(tmp_path):
    run = Run("a", tmp_path)
    run.record_start("kimg: 1\n", ["kimg=1"])
    run.record_start("kimg: 2\n", [])
    assert (run.folder / "config.yaml").read_text() == "kimg: 2\n"
    first, second = (run.folder / "log.txt").read_text().splitlines()
    assert first.endswith("start: kimg=1")
    assert second.endswith("start: (no overrides)")


def test_outside_of_git_there_is_no_commit(folder):
    assert git_commit(folder) is None
