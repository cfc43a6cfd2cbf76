"""What steers the augmentation: by hand with signs of one's own, and through the real command."""

import csv

import pytest
import pytorch_lightning as pl
import torch
from kornia.filters import gaussian_blur2d

from kaleidogan.commandline import options_of
from kaleidogan.training import checkpoint
from kaleidogan.training.augment.ada import ADA
from kaleidogan.training.augment.fade import Fade
from kaleidogan.training.callbacks.adaptive import Adapt, FadeBlur, steering
from kaleidogan.training.runs import Run
from kaleidogan.training.trainer import quiet_lightning
from test_gan import game

BATCH = torch.zeros(8, 3, 2, 2)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    torch.set_num_threads(1)  # a second one has little to do here but to wait


@pytest.fixture(scope="module")
def trainer():
    quiet_lightning()
    return pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)


@pytest.fixture
def play(trainer, folder):
    """Show the controller batches whose reals have some mean signs; returns p and r_t after each."""

    def start(ada, *signs):
        gan = game(augment=ada)
        (adapt,) = steering(gan, Run("a"))
        assert isinstance(adapt, Adapt)
        found = []
        for sign in signs:
            gan.batches_seen += 1
            outputs = {"logit/sign": torch.tensor(sign)}
            adapt.on_train_batch_end(trainer, gan, outputs, {"image": BATCH}, 0)
            adapt.on_train_epoch_end(trainer, gan)
            found.append((outputs["augment/p"].item(), outputs["augment/r_t"].item()))
        start.last = adapt
        return found

    return start


def probabilities(found):
    return [p for p, _ in found]


# ADA's probability


def test_p_rises_by_the_images_over_the_speed_every_interval(play):
    # 4 batches of 8 at 1 kimg from 0 to 1.
    found = play(ADA(kimg=1.0, interval=4), *[0.9] * 9)
    assert probabilities(found) == pytest.approx([0, 0, 0, 0.032, 0.032, 0.032, 0.032, 0.064, 0.064])


def test_p_falls_below_the_target_and_stays_at_0(play):
    ada = ADA(kimg=1.0, interval=2)
    ada.p.fill_(0.04)
    found = play(ada, *[0.59] * 8)
    assert probabilities(found) == pytest.approx([0.04, 0.024, 0.024, 0.008, 0.008, 0, 0, 0])


def test_p_stays_where_the_target_is_met(play):
    assert probabilities(play(ADA(kimg=1.0, interval=1, target=0.5), 0.5, 0.5)) == [0, 0]


def test_the_target_is_what_signs_are_held_against(play):
    assert probabilities(play(ADA(kimg=1.0, interval=1, target=0.7), 0.65))[-1] == 0
    assert probabilities(play(ADA(kimg=1.0, interval=1, target=0.6), 0.65))[-1] > 0


def test_r_t_is_the_mean_sign_since_p_moved_last(play):
    found = play(ADA(interval=3), 1.0, 0.5, 0.0, -1.0, -0.5, -0.6)
    assert [r_t for _, r_t in found] == pytest.approx([0, 0, 0.5, 0.5, 0.5, -0.7])


def test_the_published_speed_is_500_kimg():
    assert ADA().kimg == 500
    assert ADA().interval == 4
    assert ADA().target == 0.6


@pytest.mark.parametrize("max_p", [0.1, 0.3, 0.7, 0.8, 0.9, 1.0])
def test_p_stays_at_its_bound_and_says_so_once(play, capsys, folder, max_p):
    found = play(ADA(kimg=0.01, interval=1, max_p=max_p), *[1.0] * 4)
    assert probabilities(found)[-2:] == pytest.approx([max_p, max_p])
    said = capsys.readouterr().out
    assert said.count("warning") == 1
    assert f"augment.p has reached {max_p:g}" in said
    assert "show in the samples" in said
    assert "warning" in (folder / "runs" / "a" / "log.txt").read_text()


def test_below_the_bound_nothing_is_said(play, capsys):
    play(ADA(kimg=1.0, interval=1), *[1.0] * 4)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_a_fixed_p_stays_and_r_t_is_still_told(play, capsys, p):
    found = play(ADA(p=p, kimg=0.01, interval=1), 1.0, 1.0)
    assert probabilities(found) == pytest.approx([p, p])
    assert [r_t for _, r_t in found] == [1, 1]
    assert capsys.readouterr().out == ""


def test_signs_since_p_moved_last_are_in_the_state(play, trainer):
    ada = ADA(kimg=1.0, interval=4)
    play(ada, 0.9, 0.1)
    other = Adapt(ada, Run("a"))
    other.load_state_dict(play.last.state_dict())
    gan = game(augment=ada)
    gan.batches_seen = 2
    for sign in (0.9, 0.9):
        gan.batches_seen += 1
        outputs = {"logit/sign": torch.tensor(sign)}
        other.on_train_batch_end(trainer, gan, outputs, {"image": BATCH}, 0)
    assert outputs["augment/r_t"].item() == pytest.approx(0.7)
    assert outputs["augment/p"].item() == pytest.approx(0.032)


# The blur that fades


def test_the_blur_shrinks_linearly_and_is_gone():
    fade = Fade(2.0, kimg=0.1)
    assert [fade.at(images) for images in (0, 25, 50, 100, 1000)] == [2.0, 1.5, 1.0, 0.0, 0.0]


def test_a_blur_is_a_gaussian_until_it_is_none():
    images = torch.rand(2, 3, 24, 32) * 2 - 1
    fade = Fade(1.5, kimg=1.0)
    torch.testing.assert_close(fade(images), gaussian_blur2d(images, (9, 9), (1.5, 1.5)))
    spot = torch.zeros(1, 1, 33, 33)
    spot[0, 0, 16, 16] = 1
    place = torch.arange(33) - 16.0
    across = fade(spot)[0, 0].sum(0)
    assert across.sum().item() == pytest.approx(1)
    assert (across * place**2).sum().item() == pytest.approx(1.5**2, rel=0.05)
    fade.sigma = 0.0
    assert fade(images) is images


@pytest.mark.parametrize("size", [(12, 12), (16, 64)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_wide_blur_works_on_small_pictures_of_any_type(size, dtype):
    images = torch.full((1, 4, *size), 0.5, dtype=dtype)
    found = Fade(10.0, kimg=1.0)(images)
    assert found.dtype == dtype
    torch.testing.assert_close(found, images, atol=1e-6, rtol=0)


def test_autocast_does_not_round_blurred_pictures():
    images, fade = torch.rand(2, 3, 16, 16), Fade(2.0, kimg=1.0)
    expected = fade(images)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(fade(images), expected)


def test_the_blur_comes_before_the_augmentation_and_each_has_its_callback():
    fade, ada = Fade(2.0, kimg=1.0), ADA()
    found = steering(game(augment=torch.nn.Sequential(fade, ada)), Run("a"))
    assert [type(callback) for callback in found] == [FadeBlur, Adapt]
    assert steering(game(), Run("a")) == []


# Through the real command


BRIEF = ("kimg=0.032", "tick_kimg=0.016", "trainer.threads=1", "callbacks.samples.rows=2")


def rows(run):
    with (run / "metrics.csv").open() as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("augment", options_of("augment"))
@pytest.mark.parametrize("model", options_of("model"))
def test_every_augmentation_trains_every_model(train, model, augment):
    run = train(*BRIEF, f"augment={augment}", model=model)
    found = rows(run)
    assert len(found) == 2
    told = {key for key in found[0] if key.startswith("augment/")}
    assert told == ({"augment/p", "augment/r_t"} if augment == "ada" else set())
    assert float(found[-1]["loss/discriminator"]) > 0
    state = checkpoint.load(run / "checkpoints" / "last.ckpt")["state_dict"]
    assert any(key.startswith("augment.") for key in state) == (augment == "ada")


def test_p_rises_in_a_run_as_its_metrics_say(train):
    # At a target next to 0 almost any sign is above or below it.
    settings = ("augment.target=0.001", "augment.interval=1", "augment.kimg=0.1", "augment.max_p=1")
    run = train(*BRIEF, *settings, model="stylegan2_ada")
    found = rows(run)
    state = checkpoint.load(run / "checkpoints" / "last.ckpt")["state_dict"]
    # A step is 8 images of 100; the last tick's mean is that of its two batches.
    steps = float(state["augment.augment.p"]) / 0.08
    assert steps == pytest.approx(round(steps))
    assert abs(float(found[-1]["augment/p"]) - float(state["augment.augment.p"])) <= 0.04 + 1e-6
    assert -1 <= float(found[-1]["augment/r_t"]) <= 1


def test_what_a_tick_of_stylegan2_tells(train):
    run = train(*BRIEF, "model.r1_every=2", "model.path_length_every=2", model="stylegan2_ada")
    told = {"penalty/r1", "penalty/path_length", "penalty/path_length_mean", "augment/p", "augment/r_t"}
    for row in rows(run):
        assert all(float(row[key]) >= 0 for key in told - {"augment/r_t"})


def test_the_blur_fades_in_a_run_as_its_metrics_say(train):
    settings = ("model.blur_sigma=2", "model.blur_fade_kimg=0.016", "augment=none")
    found = rows(train(*BRIEF, *settings, model="stylegan2_ada"))
    # At 0 and 8 images of 16, then at 16 and 24.
    assert [float(row["augment/blur_sigma"]) for row in found] == pytest.approx([1.5, 0.0])


def test_a_fixed_p_stays_through_a_run(train):
    run = train(*BRIEF, "augment.p=0.4", "augment.interval=1", "augment.kimg=0.01", model="stylegan2_ada")
    assert [float(row["augment/p"]) for row in rows(run)] == pytest.approx([0.4, 0.4])


def test_the_preview_of_augmentations_changes_nothing_in_the_training(train, capsys):
    ask = "callbacks.samples.augmented=true"
    plain = train(*BRIEF, "augment.p=0.5", name="a", model="stylegan2_ada")
    shown = train(*BRIEF, "augment.p=0.5", ask, name="b", model="stylegan2_ada")
    one, other = (checkpoint.load(run / "checkpoints" / "last.ckpt")["state_dict"] for run in (plain, shown))
    for key, value in one.items():
        assert torch.equal(value, other[key]) if isinstance(value, torch.Tensor) else value == other[key]
    assert (shown / "samples" / "augmented.png").exists()
    assert not (plain / "samples" / "augmented.png").exists()
    with pytest.raises(SystemExit):
        train(*BRIEF, ask, "augment=none", name="c", model="stylegan2_ada")
    assert "callbacks.samples.augmented=true needs augment=ada" in capsys.readouterr().err
