"""Who is taken and who is left out, by the articles' rules and by one's own."""

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from kaleidogan.config import CONF, check
from kaleidogan.data.collecting.works import Rules, Work, says, year_of, years_in

PRESETS = {
    "machineray": Rules(genre=("abstract",), born_after=1850, born_before=1900, died_before=1950),
    "magnet": Rules(style=("modern",), born_after=1800, died_before=1950),
    "ganscapes": Rules(style=("impressionism",), genre=("landscape",), born_after=1800, died_before=1950),
}


def work(**known):
    known = {"genre": ("Landscapes",), "style": ("Impressionism",)} | known
    return Work(id="1", address="http://x/1.jpg", public_domain=True, **known)


@pytest.mark.parametrize(
    ("preset", "born", "died", "taken"),
    [
        ("machineray", 1850, 1900, False),
        ("machineray", 1851, 1900, True),
        ("machineray", 1899, 1990, True),
        ("machineray", 1900, 1950, False),
        ("machineray", 1900, 1949, True),
        ("machineray", 1899, None, False),
        ("machineray", 1899, 0, False),
        ("machineray", None, 1949, False),
        ("magnet", 1800, 1900, False),
        ("magnet", 1801, 1949, True),
        ("magnet", 1801, 1950, False),
        ("magnet", 1801, None, False),
        ("ganscapes", 1800, 1900, False),
        ("ganscapes", 1801, 1949, True),
        ("ganscapes", 1801, 1950, False),
        ("ganscapes", None, None, False),
    ],
)
def test_the_articles_rules_at_their_boundary_years(preset, born, died, taken):
    genre = ("Abstraction", "abstract painting") if preset == "machineray" else ("Landscapes",)
    style = ("Modern and Contemporary Art",) if preset == "magnet" else ("Post-Impressionism",)
    found = PRESETS[preset].against(work(genre=genre, style=style, born=born, died=died))
    assert (found is None) == taken, found


@pytest.mark.parametrize("preset", PRESETS)
def test_the_articles_rules_leave_out_other_genres_styles_and_licences(preset):
    lives = {
        "born": 1860,
        "died": 1940,
        "genre": ("Abstract", "landscape"),
        "style": ("modern", "impressionism"),
    }
    rules = PRESETS[preset]
    assert rules.against(work(**lives)) is None
    other = work(**lives | {"genre": ("Portraits",), "style": ("Baroque",)})
    assert "is not" in rules.against(other)
    closed = Work(id="1", address="http://x/1.jpg", **lives)
    assert rules.against(closed) == "not said to be in the public domain"


@pytest.mark.parametrize("preset", PRESETS)
def test_the_presets_reach_the_command_as_they_are_tested(preset):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = OmegaConf.to_container(compose("collect", [f"rules={preset}", "++out=x"]))
    settings = check(composed)
    assert {key: settings[key] for key in vars(PRESETS[preset])} == vars(PRESETS[preset])


@pytest.mark.parametrize(
    ("made", "rules", "taken"),
    [
        ((1861, 1870), Rules(made_after=1860), True),
        ((1860, 1870), Rules(made_after=1860), False),
        ((1861, 1870), Rules(made_before=1871), True),
        ((1861, 1870), Rules(made_before=1870), False),
        (None, Rules(made_after=1860), False),
        (None, Rules(), True),
    ],
)
def test_all_years_of_a_date_have_to_be_within(made, rules, taken):
    assert (rules.against(work(made=made)) is None) == taken


def test_words_are_found_at_the_beginnings_of_words():
    assert says(["Landscapes"], ["landscape"])
    assert says(["Post-Impressionism"], ["IMPRESSIONISM"])
    assert says(["still life"], ["portrait", "still life"])
    assert not says(["footprints"], ["print"])
    assert not says(["Prints"], ["print."])
    assert not says([], ["print"])


def test_years_are_read_from_what_museums_write():
    assert [year_of(v) for v in (1853, "1853 ", "ca. 1853", 1853.0, "-500")] == [1853, 1853, 1853, 1853, -500]
    nothing = ("", None, "9999", 0, "0", "19th century", [], float("nan"), float("inf"), 1e300)
    assert {year_of(value) for value in nothing} == {None}
    assert years_in("1889") == (1889, 1889)
    assert years_in("c. 1850-60") == (1850, 1860)
    assert years_in("between 1901 and 1905") == (1901, 1905)
    assert years_in("19th century") is None
