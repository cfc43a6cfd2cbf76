"""What the user types, and what Hydra is given."""

import re

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from kaleidogan import cli
from kaleidogan.commandline import help_text, read_overrides
from kaleidogan.config import ConfigError


def value_of(argument: str) -> object:
    """The value that Hydra reads in the end."""
    (override,) = read_overrides([argument])[1]
    return OverridesParser.create().parse_override(override).value()


@pytest.mark.parametrize(
    "text",
    [
        "van gogh's night",
        "0,3,5-8",
        "a=b",
        "/tmp/a b/c=d/e,f",
        "C:\\dir\\",
        "two at the end\\\\",
        "a\\\\'b",
        "'s Gravenhage",
        "it's \\'so\\'",
        "caf\u00e9 (1)",
        "{x} [y] $z",
        "7",
    ],
)
@pytest.mark.parametrize("key", ["text", "seeds", "data.path", "out"])
def test_free_text_arrives_as_it_was_typed(key, text):
    assert str(value_of(f"{key}={text}")) == text


def test_values_keep_their_kind():
    assert value_of("kimg=20") == 20
    assert value_of("model.learning_rate=1e-4") == 1e-4
    assert value_of("resolution=[48,64]") == [48, 64]
    assert value_of("checkpoint=null") is None


def test_keys_are_added_and_groups_chosen():
    assert read_overrides(["model=dcgan", "model.width=8", "+x=1", "~callbacks.samples"])[1] == [
        "model=dcgan",
        "++model.width=8",
        "+x=1",
        "~callbacks.samples",
    ]


def test_a_sweep_may_run_over_paths_but_not_over_the_parts_of_a_text():
    flags, overrides = read_overrides(["-m", "data.path=a=1,b c", "seeds=0-3,5", "model=dcgan"])
    assert flags == ["-m"]
    assert overrides[:2] == ["++data.path='a=1','b c'", "++seeds='0-3,5'"]


def test_hydras_own_callbacks_are_not_built(folder, capsys):
    evil = ["+hydra.callbacks.x._target_=os.mkdir", "+hydra.callbacks.x.path=pwned"]
    for flags in ([], ["-m"]):
        with pytest.raises(SystemExit):
            cli.run("train", [*flags, *evil, "batch_size=-1"], program="train.py")
        assert "batch_size=-1" in capsys.readouterr().err
    assert not (folder / "pwned").exists()


@pytest.mark.parametrize(
    ("argument", "says"),
    [("model=dcgn", "did you mean model=dcgan"), ("kimg", "neither a flag nor key=value")],
)
def test_what_cannot_be_meant_is_refused(argument, says):
    with pytest.raises(ConfigError, match=says):
        read_overrides([argument])


def test_help_names_every_key_and_option():
    text = help_text("train", "train.py", ["model=dcgan"])
    for word in ("batch_size", "model.learning_rate", "first_light", "procedural", "0.0002", "tensorboard"):
        assert word in text
    assert "(needed)" not in text.split("Keys of data")[0]
    assert max(len(line) for line in text.splitlines()) <= 112


@pytest.mark.parametrize("command", sorted(cli.COMMANDS))
def test_each_command_has_help(command, capsys):
    cli.run(command, ["--help"], program=command)
    assert f"{command} [key=value ...]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["modle=dcgan"], "there is no key modle; did you mean model?"),
        (["model=dcgn"], "did you mean model=dcgan?"),
        (["batch_size=-4"], "batch_size=-4"),
        (["model.lerning_rate=1"], "did you mean model.learning_rate?"),
        (["resolution=65"], "nearest that is: 64"),
        (["tick_kimg=1e-3x"], "tick_kimg=1e-3x"),
        (["logger.wandb.projct=x"], "did you mean logger.wandb.project?"),
        (["data=shards"], "data.path is not set"),
    ],
)
def test_a_mistake_ends_with_one_screen_and_status_1(folder, capsys, arguments, says):
    with pytest.raises(SystemExit) as end:
        cli.run("train", arguments, program="train.py")
    assert end.value.code == 1
    message = capsys.readouterr().err
    assert says in message
    assert "Traceback" not in message
    assert len(message.splitlines()) < 10
    assert not list(folder.iterdir())


def test_an_unknown_command_is_answered_with_the_nearest(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["kaleidogan", "trian"])
    with pytest.raises(SystemExit):
        cli.main()
    assert "did you mean train?" in capsys.readouterr().err


def test_help_follows_what_a_model_and_an_experiment_choose():
    shown = help_text("train", "train.py", ["model=stylegan2_ada"])
    assert "augment=  (default: ada)" in shown
    assert "model.freeze_layers" in shown
    assert "augment.target" in shown
    assert "callbacks.samples.augmented" in shown
    shown = help_text("train", "train.py", ["experiment=paper256", "augment=none"])
    assert "model=  (default: stylegan2_ada)" in shown
    assert "augment=  (default: none)" in shown
    assert re.search(r"resolution +256 ", shown)
    assert re.search(r"model.r1_gamma +1.0 ", shown)
