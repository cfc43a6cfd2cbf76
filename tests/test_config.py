"""Checking a configuration against the signatures, and building from it."""

import subprocess
import sys

import pytest

from kaleidogan import config
from kaleidogan.config import ConfigError, build, check, read_docs, read_signature
from kaleidogan.training.runs import Run

DCGAN = {"_target_": "kaleidogan.training.modules.dcgan.DCGAN"}


def test_defaults_come_from_the_signature():
    checked = check(DCGAN)
    assert checked["learning_rate"] == 2e-4
    assert checked["betas"] == (0.5, 0.999)
    assert checked["width"] == 64


def test_null_means_the_default_unless_none_is_a_value():
    assert check({**DCGAN, "batch_size": None})["batch_size"] == 128
    assert check({**DCGAN, "ema_rampup": None})["ema_rampup"] is None


def test_an_integer_becomes_the_float_that_is_meant():
    betas = check({**DCGAN, "betas": [0, 0.99]})["betas"]
    assert betas == (0.0, 0.99)
    assert all(type(beta) is float for beta in betas)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("lerning_rate", 1, "did you mean model.learning_rate"),
        ("qqqq", 1, "valid here: accumulate"),
        ("batch_size", -4, "model.batch_size=-4"),
        ("learning_rate", "1e-3x", "model.learning_rate=1e-3x: input should be a valid number"),
        ("loss", "bcee", "did you mean bce"),
        ("resolution", 65, "nearest that is: 64"),
        ("resolution", "big", "a resolution is one whole number"),
        ("channels", 2, "input should be 1, 3 or 4"),
        ("betas", [0.5], "model.betas"),
    ],
)
def test_a_wrong_value_is_named(key, value, says):
    with pytest.raises(ConfigError) as error:
        check({"_target_": "kaleidogan.training.modules.dcgan.DCGAN", key: value}, "model")
    assert says in str(error.value)


def test_every_single_letter_left_out_of_a_key_is_noticed():
    for key in read_signature(DCGAN["_target_"]).parameters:
        for place in range(len(key)):
            typo = key[:place] + key[place + 1 :]
            if typo not in read_signature(DCGAN["_target_"]).parameters:
                with pytest.raises(ConfigError, match="there is no key"):
                    check({**DCGAN, typo: 1})


def test_one_word_stands_for_a_list_of_one():
    node = {"_target_": "kaleidogan.data.procedural.Gallery", "styles": "fields"}
    assert check(node)["styles"] == ("fields",)


def test_all_problems_are_told_at_once():
    with pytest.raises(ConfigError) as error:
        check({**DCGAN, "widht": 1, "batch_size": 0, "learning_rate": -1})
    assert len(str(error.value).splitlines()) == 3


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "subprocess.run",
        "torch.load",
        "logging.os.system",
        "kaleidogan.training.runs.subprocess.run",
        "kaleidogan.config.importlib.import_module",
        "kaleidogan.training.runs.Path",
        "kaleidogan.nowhere.Thing",
        "pytorch_lightning.callbacks.callback.Any",
    ],
)
def test_a_target_outside_of_the_allow_list_is_refused(target):
    with pytest.raises(ConfigError, match=r"not allowed|not a class or function that is defined"):
        check({"_target_": target})
    with pytest.raises(ConfigError):
        config.locate(target)


def test_build_calls_targets_and_hands_out_what_is_supplied(tmp_path):
    node = check({"_target_": "kaleidogan.training.logging.csv.CSV"})
    assert build({"one": node}, run=Run("a", tmp_path))["one"].path == tmp_path / "a" / "metrics.csv"


def test_the_package_of_a_target_is_not_imported_to_check_it():
    code = (
        "import sys; from kaleidogan.config import check;"
        "check({'_target_': 'kaleidogan.training.modules.dcgan.DCGAN'});"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_docs_of_arguments_are_read_over_several_lines():
    text = "Do.\n\nArgs:\n    one: first,\n        and more.\n    two: second.\n\nReturns:\n    three: no."
    assert read_docs(text) == {"one": "first, and more.", "two": "second."}
