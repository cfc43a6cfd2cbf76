"""Every option of every group composes, passes the check, says what it is, and can be built."""

from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from conftest import small
from kaleidogan.commandline import groups, header, options_of
from kaleidogan.config import CONF, TARGET, build, check, read_signature

OTHERS = {"task", "rules", "recipe"}
"""The groups that are not for training."""
OPTIONS = [(group, option) for group in groups() if group not in OTHERS for option in options_of(group)]


def composed(command: str, *overrides: str) -> dict:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        plain = OmegaConf.to_container(compose(command, list(overrides)), resolve=True)
    return check(plain)


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_and_passes_the_check(group, option):
    checked = composed("train", f"{group}={option}", "++data.path=somewhere")
    assert {"model", "data", "trainer"} <= set(checked)


@pytest.mark.parametrize("option", options_of("task"))
def test_every_task_composes_and_passes_the_check(option):
    assert TARGET in composed("generate", f"task={option}")["task"]


@pytest.mark.parametrize("option", options_of("rules"))
def test_all_rules_compose_and_pass_the_check(option):
    checked = composed("collect", f"rules={option}", "++out=somewhere")
    assert checked["died_before"] == 1950


@pytest.mark.parametrize("option", options_of("recipe"))
def test_every_recipe_composes_and_passes_the_check(option):
    checked = composed("prepare", f"recipe={option}", "++source=here", "++out=there", "++resize=hamming")
    assert checked["resolution"] in ((512, 512), (1024, 1024))
    assert checked["resize"] == "hamming"


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONF)))
def test_every_file_says_what_it_is(path: Path):
    assert len(header(path)) > 10
    assert path.read_text().startswith("#")


@pytest.mark.parametrize("option", options_of("model"))
def test_every_model_is_built_small(option):
    checked = composed("train", f"model={option}", *[f"++{o}" for o in ("resolution=16", *small(option))])
    gan = build(checked["model"])
    assert gan.generator.image_shape == (3, 16, 16)


@pytest.mark.parametrize("option", options_of("experiment"))
def test_every_experiment_gives_its_command(option):
    assert f"experiment={option}" in (CONF / "experiment" / f"{option}.yaml").read_text()


def test_each_default_lives_once():
    """A YAML that repeats the signature's default would hide a later change of it."""
    for path in CONF.rglob("*.yaml"):
        for node in nodes(yaml.safe_load(path.read_text()) or {}):
            defaults = read_signature(node[TARGET]).parameters
            for key, value in node.items():
                if key in defaults and not isinstance(value, dict) and value is not None:
                    assert value != defaults[key].default, f"{path.name}: {key}"


def nodes(value):
    if isinstance(value, dict):
        if TARGET in value:
            yield value
        for entry in value.values():
            yield from nodes(entry)
