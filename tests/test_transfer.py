"""Beginning with another training's weights, through the real command."""

import re
import shutil
from pathlib import Path

import pytest
import torch

from conftest import write_set
from kaleidogan.training import checkpoint
from kaleidogan.training.augment.ada import ADA
from kaleidogan.training.transfer import NETWORKS, by_place

STYLEGAN2 = {"model": "stylegan2_ada"}
ONE_BATCH = ("kimg=0.008", "tick_kimg=0.008", "trainer.threads=1", "callbacks.samples.rows=1")
STILL = ("model.learning_rate=1e-30", "model.ema_rampup=null", "model.ema_kimg=1e9")
"""A step that leaves float32 weights as they are, so that what was copied can be seen."""


def saved(run: Path) -> dict:
    return checkpoint.load(run / "checkpoints" / "last.ckpt")


def networks(run: Path) -> dict[str, torch.Tensor]:
    return {key: value for key, value in saved(run)["state_dict"].items() if key.startswith(NETWORKS)}


def log(run: Path) -> str:
    return (run / "log.txt").read_text()


@pytest.fixture
def brief(train):
    """Train for a batch or so."""

    def start(*overrides, **where):
        return train(*ONE_BATCH, *overrides, **{**STYLEGAN2, **where})

    return start


def test_what_fits_is_copied_and_what_does_not_is_named_with_both_shapes(brief):
    source = networks(brief(name="source"))
    run = brief("init_from=runs/source", "model.channel_max=4", *STILL, name="narrow")
    found = networks(run)
    named = dict(re.findall(r"not from there: (\S+) (.*)", log(run)))
    assert named.keys() == {key for key, value in found.items() if value.shape != source[key].shape}
    for key, says in named.items():
        assert says == f"{tuple(found[key].shape)}: {tuple(source[key].shape)} there"
    copied = found.keys() - named.keys()
    assert len(copied) > 30
    # What follows the pictures: w_avg moves with each batch.
    for key in copied:
        if not key.endswith("w_avg"):
            assert torch.equal(found[key], source[key]), key
    assert f"beginning with {len(copied)} of {len(found)} tensors from 'runs/source/" in log(run)
    assert f"the other {len(named)} stay as initialised" in log(run)
    # Time, optimisers and all else begin anew.
    assert saved(run)["state_dict"]["_extra_state"] == {"images_seen": 8, "batches_seen": 1}


def test_all_of_a_like_model_is_copied(brief):
    source = networks(brief(name="source"))
    run = brief("init_from=runs/source/checkpoints/last.ckpt", *STILL, name="like")
    assert "not from there" not in log(run)
    assert f"beginning with {len(source)} of {len(source)} tensors" in log(run)
    for key, value in networks(run).items():
        if not key.endswith("w_avg"):
            assert torch.equal(value, source[key]), key


def test_blocks_of_another_size_are_matched_by_their_sizes(brief, folder):
    """Those of a discriminator are numbered from the picture, and one is before them in a larger one."""
    source = networks(brief(name="source"))
    write_set(folder / "large", size=32)
    run = brief("init_from=runs/source", "resolution=32", "data.path=large", *STILL, name="large")
    found = networks(run)
    for ours, theirs in (
        ("discriminator.blocks.2.conv0.weight", "discriminator.blocks.1.conv0.weight"),
        ("discriminator.blocks.2.skip.weight", "discriminator.blocks.1.skip.weight"),
        ("discriminator.conv.weight", "discriminator.conv.weight"),
        ("generator.blocks.2.conv1.weight", "generator.blocks.2.conv1.weight"),
    ):
        assert torch.equal(found[ours], source[theirs]), ours
    named = set(re.findall(r"not from there: (\S+) .*: not there", log(run)))
    assert {"discriminator.blocks.0.conv0.weight", "generator.blocks.3.conv0.weight"} <= named
    assert not any(key.startswith(("discriminator.blocks.1.", "generator.blocks.2.")) for key in named)


def test_places_are_those_that_other_sizes_share():
    small = by_place(["discriminator.blocks.0.a", "discriminator.blocks.1.a", "generator.blocks.0.a"])
    large = by_place([f"discriminator.blocks.{number}.a" for number in range(12)])
    assert small["discriminator.blocks.0.a"] == "discriminator.blocks.1.a"
    assert small["generator.blocks.0.a"] == "generator.blocks.0.a"
    assert large["discriminator.blocks.11.a"] == "discriminator.blocks.0.a"
    assert len(large) == 12


def test_p_may_rise_five_times_as_fast_after_a_transfer(brief):
    def kimg(run):
        return saved(run)["config"]["model"]["augment"]["kimg"]

    source = brief(name="source")
    assert ADA(kimg=kimg(source)).kimg == 500
    assert kimg(brief("init_from=runs/source", name="a")) == 100
    assert kimg(brief("init_from=runs/source", "augment.kimg=300", name="b")) == 300


@pytest.mark.parametrize("augment", ["none", "diffaugment"])
def test_a_transfer_takes_any_augmentation(brief, augment):
    brief(name="source")
    run = brief("init_from=runs/source", f"augment={augment}", name=augment)
    assert "beginning with" in log(run)


def test_resuming_does_not_transfer_again(brief, folder):
    brief(name="source")
    run = brief("init_from=runs/source", name="a")
    first = saved(run)
    shutil.rmtree(folder / "runs" / "source")
    brief("init_from=runs/source", "kimg=0.016", name="a")
    assert log(run).count("beginning with") == 1
    assert saved(run)["state_dict"]["_extra_state"]["images_seen"] == 16
    assert saved(run)["config"]["model"]["augment"]["kimg"] == first["config"]["model"]["augment"]["kimg"]


def test_where_nothing_fits_or_is_there_it_is_refused(brief, train, capsys):
    train("kimg=0.008", name="other", model="dcgan")
    for source, says in (
        ("runs/other", "nothing in 'runs/other/checkpoints/last.ckpt' fits this model; init_from="),
        ("runs/nowhere", "no checkpoint at 'runs/nowhere'"),
    ):
        with pytest.raises(SystemExit):
            brief(f"init_from={source}", name="a")
        assert says in capsys.readouterr().err


def test_frozen_layers_keep_their_weights_to_the_bit_and_others_move(brief):
    source = networks(brief(name="source"))
    frozen = ("from_picture.", "blocks.0.conv0.", "blocks.0.conv1.")
    found = networks(brief("init_from=runs/source", "model.freeze_layers=3", "kimg=0.024", name="a"))
    for key, value in found.items():
        if key.startswith("discriminator."):
            stays = key.removeprefix("discriminator.").startswith(frozen)
            assert torch.equal(value, source[key]) == stays, key


def test_freezing_every_layer_is_refused(brief, capsys):
    # 1 from the picture, 3 in each of 2 blocks, a convolution and 2 dense ones.
    source = brief(name="source")
    with pytest.raises(SystemExit):
        brief("model.freeze_layers=10", f"init_from={source}", name="a")
    assert "freeze_layers=10: the discriminator has 10, and one has to learn" in capsys.readouterr().err
    brief("model.freeze_layers=9", f"init_from={source}", name="b")


def test_freezing_what_has_not_learnt_is_refused(brief, capsys):
    with pytest.raises(SystemExit):
        brief("model.freeze_layers=2", name="a")
    assert "set init_from=RUN" in capsys.readouterr().err


def test_to_begin_and_to_go_on_at_once_is_refused(brief, capsys):
    source = brief(name="source")
    with pytest.raises(SystemExit):
        brief(f"resume={source}", f"init_from={source}", name="a")
    assert "set one of them" in capsys.readouterr().err


def test_the_copied_average_is_not_ramped_away(brief):
    source = brief(name="source")
    run = brief(f"init_from={source}", name="a")
    config = checkpoint.load(run / "checkpoints" / "last.ckpt")["config"]
    assert config["model"]["ema_rampup"] is None
