"""What StyleGAN2-ADA cannot do is refused before a picture is read, with the value and what to do."""

import pytest

from conftest import blobs, write_set
from kaleidogan.data import shards
from kaleidogan.data.reader import Reader
from kaleidogan.data.writing import write


@pytest.fixture
def refuse(train, capsys, monkeypatch):
    """Start the real command, which has to fail; returns what it says."""
    read = []
    monkeypatch.setattr(Reader, "read", lambda self, number: read.append(number))

    def start(*settings):
        with pytest.raises(SystemExit) as stopped:
            train(*settings, model="stylegan2_ada")
        said = capsys.readouterr().err
        assert stopped.value.code == 1
        assert read == []
        assert "Traceback" not in said
        return said

    return start


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["augment.target=0"], "augment.target=0: input should be greater than 0"),
        (["augment.target=1.2"], "augment.target=1.2: input should be less than 1"),
        (["augment.p=1.5"], "augment.p=1.5: input should be less than or equal to 1"),
        (["augment.p=-0.1"], "augment.p=-0.1: input should be greater than or equal to 0"),
        (["augment.max_p=2"], "augment.max_p=2: input should be less than or equal to 1"),
        (["augment.interval=0"], "augment.interval=0: input should be greater than or equal to 1"),
        (["augment.preset=bcg"], "augment.preset"),
        (["augment.preset=[blit,colour]"], "augment.preset"),
        (["channels=2"], "channels=2: input should be 1, 3 or 4"),
        (["resolution=50"], "resolution 50 is not base * 2^k"),
        (["resolution=[48,50]"], "resolution 48x50 is not base * 2^k"),
        (["model.r1_gamma=-1"], "model.r1_gamma=-1: input should be greater than or equal to 0"),
        (["model.r1_gamma=nan"], "model.r1_gamma=nan: input should be a finite number"),
        (["model.path_length_weight=-2"], "model.path_length_weight=-2: input should be greater than"),
        (["model.path_length_every=0"], "model.path_length_every=0: input should be greater than"),
        (["model.style_mixing=1.2"], "model.style_mixing=1.2: input should be less than or equal to 1"),
        (["model.mapping_layers=0"], "model.mapping_layers=0: input should be greater than or equal to 1"),
        (["model.generator_architecture=skips"], "did you mean skip?"),
        (["model.c_dim=-1"], "model.c_dim=-1: input should be greater than or equal to 0"),
        (
            ["model.c_dim=5"],
            "model.c_dim=5, but 'set' has 3 classes: a, b, c; set model.c_dim=3",
        ),
        (
            ["model.c_dim=2"],
            "model.c_dim=2, but 'set' has 3 classes: a, b, c; set model.c_dim=3",
        ),
    ],
)
def test_settings_out_of_range_are_refused_with_the_range(refuse, settings, says):
    assert says in refuse(*settings)


def test_a_mistyped_preset_is_answered_with_the_nearest(refuse):
    said = refuse("augment.preset=bcg")
    assert "bcg" in said
    assert "did you mean bg" in said


def test_a_size_that_does_not_divide_is_answered_with_the_nearest(refuse):
    assert "the nearest that is: 48" in refuse("resolution=50")


def test_conditions_of_pictures_without_labels_are_refused(refuse, folder):
    write_set(folder / "set")
    plain = [shards.Sample(shards.encode(picture, "png"), (16, 16)) for picture in blobs(10)]
    write(folder / "plain", plain, shards.Description(resolution=(16, 16)))
    said = refuse("model.c_dim=3", "data.path=plain")
    assert "model.c_dim=3, but 'plain' has 0 classes; set model.c_dim=0" in said
    some = [
        shards.Sample(shards.encode(picture, "png"), (16, 16), label=number % 3 if number < 8 else -1)
        for number, picture in enumerate(blobs(10))
    ]
    write(folder / "some", some, shards.Description(resolution=(16, 16), label_names=("a", "b", "c")))
    said = refuse("model.c_dim=3", "data.path=some")
    assert "2 of 10 pictures in 'some' have no label, and model.c_dim=3 asks for one each" in said


def test_a_checkpoint_of_another_shape_is_not_gone_on_with(train, capsys):
    settings = ("trainer.threads=1", "callbacks.samples.rows=1")
    train(*settings, "kimg=0.008", model="stylegan2_ada")
    with pytest.raises(SystemExit):
        train(*settings, "kimg=0.016", "model.channel_max=4", model="stylegan2_ada")
    said = capsys.readouterr().err
    assert "the checkpoint was trained with other settings:\n  model.channel_max: 8 -> 4\n" in said


def test_mistyped_variants_and_levels_are_refused(train, capsys):
    for model, setting, says in (
        ("swagan", "model.variant=papr", "did you mean paper?"),
        ("swagan", "model.upsampling=neurl", "did you mean neural?"),
        ("progan", "model.grow_from=8", "model.grow_from is set by growth.start: leave it out"),
    ):
        with pytest.raises(SystemExit):
            train(setting, model=model)
        assert says in capsys.readouterr().err


def test_a_checkpoint_of_another_model_is_not_gone_on_with(train, capsys):
    train("kimg=0.016")
    with pytest.raises(SystemExit):
        train(model="swagan")
    said = capsys.readouterr().err
    assert "the checkpoint is that of a DCGAN, not of a SWAGAN; choose another name=" in said
    assert "allow_changes" not in said
