"""The real command, from the configuration to the pictures, on tiny settings."""

import csv

import pytest
import torch

from kaleidogan.training import checkpoint


def test_a_run_leaves_samples_metrics_and_a_checkpoint(train):
    run = train()
    names = {path.name for path in (run / "samples").iterdir()}
    assert names == {"kimg-000000.png", "reals.png", "reals-and-samples.png"}
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


def equal(one, other):
    assert one.keys() == other.keys()
    return all(torch.equal(one[key], other[key]) for key in one if isinstance(one[key], torch.Tensor))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_equals_an_uninterrupted_one(train, workers):
    whole = checkpoint.load(train(f"data.num_workers={workers}", name="whole") / "checkpoints" / "last.ckpt")
    train(f"data.num_workers={workers}", "kimg=0.024", name="parts")
    parts = checkpoint.load(train(f"data.num_workers={workers}", name="parts") / "checkpoints" / "last.ckpt")
    assert equal(whole["state_dict"], parts["state_dict"])
    for one, other in zip(whole["optimizers"], parts["optimizers"], strict=True):
        assert all(equal(one["state"][key], other["state"][key]) for key in one["state"])
    assert torch.equal(whole["random"][0]["torch"], parts["random"][0]["torch"])
