"""Labels from folders and files."""

import json

import pytest

from kaleidogan.data.preparing.labels import Labels, read_labels
from kaleidogan.data.preparing.sources import Source

NOTHING = Source([], lambda name: b"")
PICTURES = ["cats/a.png", "cats/b.png", "dogs/a.png"]


def file(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return str(tmp_path / name)


def test_none():
    assert read_labels(None, PICTURES, NOTHING) == Labels({}, ())


def test_folders():
    pictures = ["b/x/1.png", "a/1.png", "b/2.png"]
    assert read_labels("folders", pictures, NOTHING) == Labels(
        {"b/x/1.png": 1, "a/1.png": 0, "b/2.png": 1}, ("a", "b")
    )


NAMED = Labels({"cats/a.png": 0, "cats/b.png": 0, "dogs/a.png": 1}, ("cat", "dog"))
NUMBERED = Labels({"cats/a.png": 2, "cats/b.png": 0, "dogs/a.png": 0}, ("0", "1", "2"))


@pytest.mark.parametrize(
    ("name", "text", "labels"),
    [
        ("l.csv", "file,label\ncats/a.png,cat\n./cats/b.png,cat\ndogs\\a.png,dog\nmore.png,eel\n", NAMED),
        ("l.csv", '\ufefffile,label\r\n"cats/a.png",2\r\n\r\ncats/b.png,0\r\ndogs/a.png,0\r\n', NUMBERED),
        ("L.JSON", json.dumps({"cats/a.png": "cat", "cats/b.png": "cat", "dogs/a.png": "dog"}), NAMED),
        ("l.json", json.dumps({"cats/a.png": 2, "cats/b.png": 0, "dogs/a.png": 0, "more.png": 9}), NUMBERED),
        (
            "dataset.json",
            json.dumps({"labels": [["cats/a.png", 2], ["cats/b.png", 0], ["dogs/a.png", 0]]}),
            NUMBERED,
        ),
    ],
)
def test_files(name, text, labels, tmp_path):
    assert read_labels(file(tmp_path, name, text), PICTURES, NOTHING) == labels


def test_some_numbers_among_names_are_names(tmp_path):
    path = file(tmp_path, "l.csv", "file,label\ncats/a.png,7\ncats/b.png,cat\ndogs/a.png,7\n")
    assert read_labels(path, PICTURES, NOTHING).names == ("7", "cat")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "l.csv",
            "file,label\ncats/a.png,cat\n",
            r"'cats/b.png' .and 1 more. is not in it; label every",
        ),
        (
            "l.csv",
            "file,label\ncats/a.png,1\ndogs/a.png,1\n",
            r"'cats/b.png' is not in it; label every picture",
        ),
        ("l.csv", "name,class\n", r"begins with 'name,class', not 'file,label'"),
        ("l.csv", "", "begins with 'nothing'"),
        ("l.csv", "file,label\na,b,c\n", r"a row is 'a,b,c', not FILE,LABEL"),
        ("l.txt", "", "ends in neither .csv nor .json"),
        ("l.json", "{", "is not JSON"),
        ("l.json", "[]", "is neither"),
        ("l.json", '{"labels": null}', "is neither"),
        (
            "l.json",
            '{"labels": [["a.png", 0], ["b.png"]]}',
            r"\['b.png'\] in .labels. is not \[path, label\]",
        ),
        ("l.json", '{"a.png": 0.5}', "the label of 'a.png' is 0.5, not a name or a whole number"),
        ("l.json", '{"a.png": true}', "the label of 'a.png' is True"),
        ("l.json", '{"labels": [["a.png", {"x": 1}]]}', "the label of 'a.png' is {'x': 1}"),
        (
            "l.json",
            '{"cats/a.png": -1, "cats/b.png": 0, "dogs/a.png": 0}',
            "label -1 of 'cats/a.png' is not a class",
        ),
        ("l.json", '{"cats/a.png": 65536, "cats/b.png": 0, "dogs/a.png": 0}', "label 65536 of 'cats/a.png'"),
    ],
)
def test_errors(name, text, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read_labels(file(tmp_path, name, text), PICTURES, NOTHING)


def test_bytes_that_are_not_utf8(tmp_path):
    for name in ("l.csv", "l.json"):
        (tmp_path / name).write_bytes(b"file,label\n\xff,1")
        with pytest.raises(ValueError, match="in UTF-8"):
            read_labels(str(tmp_path / name), PICTURES, NOTHING)


def test_a_missing_file_and_pictures_in_no_folder():
    with pytest.raises(
        FileNotFoundError, match=r"labels 'folder' does not exist; give 'folders', a .csv or a .json"
    ):
        read_labels("folder", PICTURES, NOTHING)
    with pytest.raises(ValueError, match=r"labels=folders: 'top.png' is in no folder"):
        read_labels("folders", [*PICTURES, "top.png"], NOTHING)
