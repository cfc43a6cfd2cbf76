"""When networks grow: the rules on ticks of one's own, and real trainings that grow, stop and go on."""

import os
import signal

import pytest
import torch
from PIL import Image

from conftest import TINY, small, write_set
from kaleidogan import cli
from kaleidogan.config import build
from kaleidogan.sampling import latents, load_generator, synthesize
from kaleidogan.training import checkpoint
from kaleidogan.training.callbacks.growth import Plateau, Schedule
from kaleidogan.training.gan import GAN
from kaleidogan.training.modules import ProGAN
from kaleidogan.training.runs import Run
from test_configs import composed
from test_resume import rows
from test_stopping import flat

# Batches of 8 and ticks of 16 images. From 4 to 8 px at 16 images, faded in from 16 to 40, stable to 64, then
# 16 px, faded in from 64 to 88. DCGAN, whose smallest level is 16 px, goes from 16 to 32 at 16.
SCHEDULE = ("growth=schedule", "growth.rule.stabilise_kimg=0.016", "growth.fade_kimg=0.024")
# No fall of the distance is ever progress, so a level is left after two stable ticks.
AUTO = (
    "growth=auto",
    "growth.rule.tolerance=1",
    "growth.rule.patience_kimg=0.016",
    "growth.rule.min_kimg=0.001",
    "growth.fade_kimg=0.024",
)
BRIEF = ("trainer.threads=1", "callbacks.samples.rows=1")
FAST = ("~callbacks.quality",)
"""For where nothing looks at the measures."""


# The rules


def ticks(*distances, separation=0.5, every=10.0):
    """A tick for each distance."""
    return [
        {"kimg": every * number, "swd": swd, "separation": separation}
        for number, swd in enumerate(distances, 1)
    ]


def left_at(rule, found):
    """The first tick, from 1, at whose end the rule goes on."""
    return next((n for n in range(1, len(found) + 1) if rule.reason(found[:n])), None)


def test_a_schedule_goes_on_when_its_time_is_up():
    rule = Schedule(stabilise_kimg=30)
    assert left_at(rule, [{"kimg": kimg} for kimg in (10.0, 20.0, 29.99, 30.0)]) == 4
    assert rule.reason([{"kimg": 35.0}]) == "30 kimg are up (growth.rule.stabilise_kimg)"
    assert Schedule().stabilise_kimg == 600


def plateau(**options):
    return Plateau(**{"patience_kimg": 30, "tolerance": 0.1, "min_kimg": 1, "max_kimg": 1000, **options})


def test_a_plateau_is_left_when_the_distance_has_not_fallen_for_as_long_as_the_patience():
    assert left_at(plateau(), ticks(*[50.0] * 9)) == 4  # since 10 kimg
    assert left_at(plateau(), ticks(50.0, 60.0, 50.0, 46.0)) == 4
    assert left_at(plateau(), ticks(*range(50, 0, -10))) is None


def test_progress_begins_the_patience_anew():
    assert left_at(plateau(), ticks(50.0, 50.0, 44.0, 44.0, 44.0, 44.0)) == 6


def test_a_fall_within_the_tolerance_is_no_progress_but_falls_add_up():
    assert left_at(plateau(), ticks(50.0, 48.0, 47.0, 46.0)) == 4
    assert left_at(plateau(), ticks(50.0, 48.0, 47.0, 44.0, 44.0, 44.0, 44.0)) == 7
    assert left_at(plateau(tolerance=0.0), ticks(50.0, 49.9, 49.8, 49.7, 49.6)) is None


def test_a_single_good_tick_sets_the_mark_for_the_next():
    assert left_at(plateau(), ticks(50.0, 20.0, 40.0, 30.0, 25.0)) == 5


def test_the_patience_is_half_as_long_where_the_discriminator_has_won():
    rule = plateau(won=0.95, patience_kimg=40)
    assert left_at(rule, ticks(*[50.0] * 9, separation=0.96)) == 3
    assert left_at(rule, ticks(*[50.0] * 9, separation=0.94)) == 5
    # The mean of the last three ticks counts.
    found = ticks(*[50.0] * 5)
    for tick, separation in zip(found, (0.0, 0.0, 1.0, 0.9, 1.0), strict=True):
        tick["separation"] = separation
    assert rule.reason(found[:4]) is None
    assert "has won (separation 0.97)" in rule.reason(found)


def test_a_level_is_kept_for_its_least_time_and_left_after_its_most():
    assert left_at(plateau(min_kimg=70), ticks(*[50.0] * 9)) == 7
    falling = ticks(*(100 * 0.8**n for n in range(9)))
    assert left_at(plateau(max_kimg=60), falling) == 6
    assert plateau(max_kimg=60).reason(falling) == (
        "60 kimg are up (growth.rule.max_kimg); the last progress was 0 kimg ago, at a distance of 16.78"
    )


def test_a_distance_that_is_no_number_is_no_progress():
    assert left_at(plateau(), ticks(50.0, *[float("nan")] * 5)) == 4
    assert left_at(plateau(), ticks(*[float("nan")] * 5)) == 4


def test_the_reason_of_a_plateau_holds_its_numbers():
    assert plateau().reason(ticks(50.0, 48.0, 49.0, 51.0)) == (
        "no progress for 30 kimg: sliced Wasserstein distance 51.00, and 45.00 would be progress; "
        "the discriminator still errs (separation 0.50)"
    )


def test_the_least_time_cannot_be_above_the_most():
    with pytest.raises(ValueError, match=r"growth\.rule\.min_kimg=300 is above max_kimg=200"):
        Plateau(min_kimg=300, max_kimg=200)


# Real trainings


@pytest.fixture
def grow(train, folder):
    """Train a model that grows, on a set of the size that it needs; returns the run's folder."""

    def start(*overrides, model="progan", size=None, **where):
        size = size or {"progan": 16, "dcgan": 32}[model]
        if not (folder / f"set{size}").exists():
            write_set(folder / f"set{size}", size=size)
        data = (f"resolution={size}", f"data.path=set{size}")
        return train(*BRIEF, *data, *overrides, model=model, **where)

    return start


@pytest.fixture
def cut(grow, monkeypatch):
    """Train until a signal stops it after so many images."""
    advance = GAN.advance_average

    def start(images, *overrides, **where):
        def stop(self, count):
            advance(self, count)
            if self.images_seen == images:
                os.kill(os.getpid(), signal.SIGTERM)

        with monkeypatch.context() as patch:
            patch.setattr(GAN, "advance_average", stop)
            with pytest.raises(SystemExit) as left:
                grow(*overrides, **where)
        assert left.value.code == 128 + signal.SIGTERM

    return start


@pytest.fixture
def shown(monkeypatch):
    """The batch and the size of the reals in each step of the trainings to come; the fakes have the same."""
    step, found = GAN.discriminator_step, []

    def watch(self, parts, optimizer):
        fake = self.average(torch.zeros(len(parts[0][0]), self.average.latent_dim))
        assert fake.shape == parts[0][0].shape
        found.append((sum(len(real) for real, _ in parts), *parts[0][0].shape[2:]))
        return step(self, parts, optimizer)

    monkeypatch.setattr(GAN, "discriminator_step", watch)
    return found


def saved(name="tiny"):
    return checkpoint.load(Run(name).last)


def log(run):
    return (run / "log.txt").read_text()


def test_a_schedule_grows_level_by_level_and_tells(grow, shown):
    run = grow(*SCHEDULE, *FAST, "kimg=0.096")
    said = log(run)
    for size in ("4x4", "8x8", "16x16"):
        assert f"level {size}: batches of 8; 20 of 20 source pictures are as large" in said
    for words in (
        "growth at 0.016 kimg: from 4 to 8 px with batches of 8: 0.016 kimg are up (growth.rule.stabilise",
        "growth at 0.04 kimg: level 8 px is faded in",
        "growth at 0.064 kimg: from 8 to 16 px with batches of 8: 0.016 kimg are up",
        "growth at 0.088 kimg: level 16 px is faded in",
    ):
        assert words in said
    assert said.count("growth at") == 4
    assert "note: " not in said
    assert shown == [(8, 4, 4)] * 2 + [(8, 8, 8)] * 6 + [(8, 16, 16)] * 4
    found = rows(run)
    assert [float(row["growth/side"]) for row in found] == [4, 8, 8, 8, 16, 16]
    # The last batch of each tick began 8 images before its end.
    assert [float(row["growth/alpha"]) for row in found] == pytest.approx([1, 8 / 24, 1, 1, 8 / 24, 1])


def test_growth_is_what_the_pictures_and_the_measured_plateau_say(grow):
    run = grow(*AUTO, "kimg=0.08", model="dcgan")
    said = log(run)
    assert (
        "growth at 0.032 kimg: from 16 to 32 px with batches of 8: no progress for 0.016 kimg: sliced" in said
    )
    before, after = rows(run)[1], rows(run)[-1]
    assert f"distance {float(before['metric/swd']):.2f}, " in said
    assert (before["metric/swd_16"] != "", before["metric/swd_32"]) == (True, "")
    assert float(after["metric/swd_32"]) > 0
    assert [float(row["growth/side"]) for row in rows(run)] == [16, 16, 32, 32, 32]


def test_a_new_level_forgets_the_moments_and_keeps_the_rest(grow, cut):
    settings = (*SCHEDULE, *FAST, "growth.learning_rates=[0.001,0.002,0.003]")
    cut(16, *settings, "kimg=0.048", name="new")
    grow(*settings, "growth.rule.stabilise_kimg=1", "kimg=0.016", name="old")
    new, old = saved("new"), saved("old")
    for found, level, alpha in ((new, 1, 0.0), (old, 0, 1.0)):
        for network in ("generator", "discriminator", "average"):
            stage = found["state_dict"].pop(f"{network}.stage._extra_state")
            assert stage == {"level": level, "alpha": alpha}
        for optimizer in found["optimizers"]:
            assert optimizer["param_groups"][0]["lr"] == (0.001, 0.002)[level]
            assert (optimizer["state"] == {}) == (level == 1)
    assert str(flat(new["state_dict"])) == str(flat(old["state_dict"]))
    assert torch.equal(new["random"][0]["torch"], old["random"][0]["torch"])


def test_lazy_penalties_scale_a_levels_rate(cut):
    rates = ("growth.learning_rates=[0.001,0.002]", "model.r1_gamma=1", "model.r1_every=4")
    cut(16, *SCHEDULE, *FAST, *rates, "kimg=0.048", model="dcgan")
    generator, discriminator = saved()["optimizers"]
    assert generator["param_groups"][0]["lr"] == 0.002
    assert discriminator["param_groups"][0]["lr"] == pytest.approx(0.002 * 4 / 5)


def test_each_level_has_its_batch_from_its_first_tick_on(grow, shown):
    run = grow(*SCHEDULE, *FAST, "growth.batch_sizes=[8,6,2]", "kimg=0.08")
    # Ticks end with the first batch at or after a multiple of 16; 8 px are faded in at 40, 16 px come at 64.
    assert [int(row["images"]) for row in rows(run)] == [16, 34, 52, 64, 80]
    assert shown == [(8, 4, 4)] * 2 + [(6, 8, 8)] * 8 + [(2, 16, 16)] * 8


@pytest.mark.parametrize(
    "settings",
    [
        ("model.d_steps=2", "accumulate=2"),
        ("augment=ada", "augment.interval=1", "augment.kimg=0.05", "augment.target=0.01"),
        pytest.param(("augment=ada", "augment.p=1"), marks=pytest.mark.slow),
        ("augment=diffaugment",),
        pytest.param(
            ("trainer.precision=bf16-mixed", "model.loss=non_saturating", "model.r1_every=2"),
            marks=pytest.mark.slow,
        ),
        pytest.param(("growth.start=8", "data.mirror=true"), marks=pytest.mark.slow),
    ],
)
def test_progan_grows_from_its_smallest_level_with_other_settings(grow, settings):
    run = grow(*SCHEDULE, *FAST, "kimg=0.072", *settings)
    state = saved()["state_dict"]
    assert state["generator.stage._extra_state"]["level"] == (1 if "growth.start=8" in settings else 2)
    assert all(value.isfinite().all() for value in state.values() if isinstance(value, torch.Tensor))
    assert float(rows(run)[-1]["health/nonfinite"]) == 0


def test_what_will_not_be_reached_is_said_at_the_start_and_at_the_end(grow):
    said = log(grow(*SCHEDULE, *FAST, "kimg=0.024"))
    assert "the last level may be faded in as late as at 0.08 kimg, and training ends at kimg=0.024" in said
    assert "training ended at the level of 8 px, of which 0% shows; a higher kimg goes on" in said


def test_pictures_of_a_checkpoint_in_the_middle_of_growth(cut, folder):
    cut(40, *SCHEDULE, *FAST, "kimg=0.096")
    trained = load_generator([Run("tiny").last])
    assert trained.generator.stage.alpha == pytest.approx(16 / 24)
    picture = next(synthesize(trained.generator, latents([7], 8)))
    assert picture.shape == (3, 8, 8)
    cli.run("generate", ["seeds=0-2", "device=cpu"], program="generate.py")
    made = folder / "runs" / "tiny" / "generated"
    with Image.open(made / "seed0002.png") as made_picture:
        assert made_picture.size == (8, 8)
    assert (made / "grid.png").exists()
    back = ProGAN.load_from_checkpoint(Run("tiny").last)
    assert torch.equal(back(latents([7], 8)), trained.generator(latents([7], 8)))


def test_another_training_begins_with_the_weights_of_a_grown_one(grow):
    grow(*SCHEDULE, *FAST, "kimg=0.016", name="source")
    theirs = saved("source")["state_dict"]
    still = ("model.learning_rate=1e-30", "model.ema_rampup=null", "model.ema_kimg=1e9", "kimg=0.008")
    for name, settings, size in (
        ("again", SCHEDULE, 16),
        ("later", (*SCHEDULE, "growth.start=8"), 16),
        ("at_once", ("growth=none",), 16),
        ("larger", SCHEDULE, 32),
    ):
        run = grow(*FAST, *still, *settings, "init_from=runs/source", size=size, name=name)
        ours = saved(name)["state_dict"]
        assert ours["generator.stage._extra_state"] == {"level": 0, "alpha": 1.0}  # it grows anew
        assert ("not from there" in log(run)) == (name == "larger")
        for key, value in ours.items():
            if isinstance(value, torch.Tensor) and (key in theirs or size == 16):
                assert torch.allclose(value, theirs[key], atol=1e-20, rtol=0), (name, key)


@pytest.mark.slow
def test_a_changed_rule_is_refused_unless_it_is_allowed(grow, capsys):
    grow(*SCHEDULE, *FAST, "kimg=0.016")
    changed = (*SCHEDULE, *FAST, "growth.fade_kimg=0.048", "kimg=0.032")
    with pytest.raises(SystemExit):
        grow(*changed)
    assert "growth.fade_kimg: 0.024 -> 0.048" in capsys.readouterr().err
    grow(*changed, "allow_changes=[growth]")


# What cannot be


@pytest.mark.parametrize(
    ("model", "settings", "says"),
    [
        ("stylegan2_ada", SCHEDULE, "StyleGAN2ADA does not grow: set growth=none, or model=dcgan or"),
        ("swagan", SCHEDULE, "SWAGAN does not grow: set growth=none, or model=dcgan or model=progan"),
        ("progan", ("growth.start=6",), "growth.start=6: pictures of 16 px grow through 4, 8, 16 px"),
        ("dcgan", ("growth=auto", "growth.start=8"), "growth.start=8: pictures of 16 px grow through 16 px"),
        ("progan", ("growth.start=0",), "growth.start=0"),
        ("progan", ("growth=none", "model.grow_from=8"), "model.grow_from is set by growth.start"),
        (
            "progan",
            ("growth.batch_sizes=[8,8]",),
            "growth.batch_sizes=[8, 8]: there are 3 levels, [4, 8, 16]",
        ),
        ("progan", ("growth.learning_rates=[1e-3]",), "growth.learning_rates=[0.001]: there are 3 levels"),
        ("progan", ("growth.batch_sizes=[8,6,4]", "accumulate=4"), "accumulate=4 does not divide a level's"),
        ("progan", ("growth.batch_sizes=[8,64,4]",), "has 20 pictures, fewer than one batch of 64"),
        ("progan", ("growth=auto", "growth.rule.max_kimg=100"), "growth.rule.min_kimg=200 is above max_kimg"),
        ("progan", ("growth.fade_kimg=0",), "growth.fade_kimg=0: input should be greater than 0"),
        ("progan", ("growth=auto", "~callbacks.quality"), "set callbacks=default, or use growth=schedule"),
        ("progan", ("growth=auto", "~callbacks.record"), "set callbacks=default, or use growth=schedule"),
        ("progan", ("growth=auto", "callbacks.quality.pictures=1"), "of 2 pictures or more"),
        ("progan", ("compile=true",), "compile=true would compile anew in each batch of a fade"),
    ],
)
def test_what_does_not_fit_is_refused_before_a_step(grow, shown, capsys, model, settings, says):
    with pytest.raises(SystemExit):
        grow(*settings, model=model, size=16)
    said = capsys.readouterr().err
    assert says in said
    assert "Traceback" not in said
    assert shown == []


def test_growth_by_measures_without_callbacks_is_refused(folder, shown, capsys):
    write_set(folder / "set")
    settings = [o for o in TINY if not o.startswith("callbacks")]
    settings += [*small("progan"), "model=progan", "growth=auto", "callbacks=none", "logger=csv"]
    with pytest.raises(SystemExit):
        cli.run("train", [*settings, "data=shards", "data.path=set", "name=a"], program="train.py")
    assert "set callbacks=default, or use growth=schedule" in capsys.readouterr().err
    assert shown == []


@pytest.mark.parametrize("model", ["progan", "dcgan"])
def test_the_experiment_for_the_wall_composes(model):
    found = composed(
        "train", "experiment=wall_art", f"model={model}", *[f"++{setting}" for setting in small(model)]
    )
    assert found["model"]["_target_"].rpartition(".")[2].lower() == model
    assert found["growth"]["rule"]["_target_"].endswith("Plateau")
    assert (found["growth"]["start"], found["resolution"]) == (32, (128, 128))
    gan = build({**found["model"], "grow_from": 32})
    assert gan.generator.stage.sizes == [(32, 32), (64, 64), (128, 128)]


# Interruptions


@pytest.mark.parametrize(
    ("model", "settings", "cuts"),
    [
        ("progan", SCHEDULE, [8, 16, 24]),
        pytest.param("dcgan", AUTO, [24, 32, 40], marks=pytest.mark.slow),
    ],
)
def test_cut_in_a_level_at_a_change_and_in_a_fade_it_goes_on_to_the_bit(grow, cut, model, settings, cuts):
    length = (*settings, "kimg=0.064")
    whole = grow(*length, model=model, name="whole")
    for images in cuts:
        cut(images, *length, model=model, name="parts")
    assert_equal(grow(*length, model=model, name="parts"), whole)


@pytest.mark.parametrize("images", [16, *(pytest.param(i, marks=pytest.mark.slow) for i in (24, 32))])
def test_a_training_that_ended_and_is_made_longer_goes_on_to_the_bit(grow, images):
    settings = AUTO if images == 32 else SCHEDULE
    grow(*settings, "kimg=0.064", name="whole")
    grow(*settings, f"kimg={images / 1000}", name="parts")
    grow(*settings, "kimg=0.064", name="parts")
    whole, parts = saved("whole"), saved("parts")
    for part in ("state_dict", "optimizers"):
        assert str(flat(whole[part])) == str(flat(parts[part])), part
    assert whole["callbacks"]["Growth"] == parts["callbacks"]["Growth"]


CUTS = [8, 16, 24, 32, 40, 48, 56, 64, 72, 88]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("progan", SCHEDULE),
        ("progan", AUTO),
        ("progan", (*SCHEDULE, "data.num_workers=2")),
        ("dcgan", SCHEDULE),
        ("dcgan", AUTO),
        ("dcgan", (*SCHEDULE, "model.d_steps=2", "augment=ada", "augment.interval=2", "augment.kimg=0.1")),
        ("dcgan", (*SCHEDULE, "model.discriminator_norm=none", "model.r1_gamma=1", "model.r1_every=2")),
    ],
)
@pytest.mark.parametrize("cuts", [CUTS, [24, 72]], ids=["many", "two"])
def test_an_interruption_anywhere_changes_nothing(grow, cut, model, settings, cuts):
    length = (*settings, "kimg=0.112")
    whole = grow(*length, model=model, name="whole")
    for images in cuts:
        cut(images, *length, model=model, name="parts")
    assert_equal(grow(*length, model=model, name="parts"), whole)


def assert_equal(one, other):
    """Weights, average, optimisers, levels, the callbacks' states, random numbers and scalars, to the bit."""
    first, second = (saved(run.name) for run in (one, other))
    for part in ("state_dict", "optimizers", "callbacks"):
        assert str(flat(first[part])) == str(flat(second[part])), part
    for source in ("torch", "numpy"):  # Python's own is drawn from by the tests' checks of types
        assert str(flat(first["random"][0][source])) == str(flat(second["random"][0][source]))
    assert rows(one) == rows(other)
