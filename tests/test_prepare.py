"""A heap of pictures, to shards."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kaleidogan.data.preparing.prepare import prepare
from kaleidogan.data.preparing.sources import Source
from kaleidogan.data.preparing.treatment import Skipped
from kaleidogan.data.preparing.workers import in_order
from kaleidogan.data.reader import Reader
from kaleidogan.data.shards import load_index


def save(pixels, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def picture(seed, height=24, width=20, channels=3, kind="PNG"):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return save(pixels, kind)


FILES = {
    "cats/a.png": picture(1),
    "cats/b.JPG": picture(2, kind="JPEG"),
    "cats/icons/c.png": picture(3, channels=4),
    "dogs/small.webp": picture(4, 7, 9, kind="WEBP"),
    "dogs/wide.tif": picture(5, 16, 40, kind="TIFF"),
    "dogs/broken.png": picture(6)[:-200],
    "dogs/fake.png": b"no picture",
    "dogs/notes.txt": b"text",
    "Thumbs.db": b"",
}
KEPT = ["cats/a.png", "cats/b.JPG", "cats/icons/c.png", "dogs/small.webp", "dogs/wide.tif"]


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "pictures", FILES)


def make_folder(path, files):
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def run(source, out, **options):
    options = {"resolution": (12, 12), "num_workers": 0} | options
    return prepare(source=str(source), out=str(out), **options)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "report.json"}


def about(folder):
    """Read what the shards say of each sample, as any WebDataset reader would find it."""
    with tarfile.open(folder / "000000.tar") as archive:
        members = [m for m in archive.getmembers() if m.name.endswith(".json")]
        return [json.load(archive.extractfile(member)) for member in members]


def test_a_folder_becomes_a_data_set(folder, tmp_path, capsys):
    report = run(folder, tmp_path / "set")
    index = load_index(tmp_path / "set")
    assert (report.kept, report.pictures, report.enlarged, len(index)) == (5, 5, 1, 5)
    assert (index.resolution, index.channels, index.about.resize_filter) == ((12, 12), 3, "box")
    sizes = [[24, 20], [24, 20], [24, 20], [7, 9], [16, 40]]
    assert about(tmp_path / "set") == [
        {"source": n, "source_size": s} for n, s in zip(KEPT, sizes, strict=True)
    ]
    assert [[row["height"], row["width"]] for row in index.rows] == sizes
    assert set(index.rows["label"]) == {-1}
    source = np.asarray(Image.open(io.BytesIO(FILES["dogs/wide.tif"])))
    mean = np.asarray(Image.fromarray(source[:, 12:28]).resize((12, 12), Image.Resampling.BOX))
    assert (Reader(index).read(4) == mean).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pictures", "set"]
    assert str(report) in capsys.readouterr().out


def test_the_report_names_what_was_left_out(folder, tmp_path, capsys):
    run(folder, tmp_path / "set", exclude=("icons", "nothing"))
    report = json.loads((tmp_path / "set" / "report.json").read_text())
    settings = report.pop("settings")
    assert settings["resolution"] == [12, 12]
    assert settings["exclude"] == ["icons", "nothing"]
    assert not {"out", "num_workers"} & set(settings)
    details = [one.pop("detail", "") for one in report["skipped_files"]]
    assert "truncated" in details[0].lower()
    assert report == {
        "kept": 4,
        "pictures": 4,
        "captions": 0,
        "enlarged": 1,
        "unframed": 0,
        "excluded": 1,
        "excluded_by_pattern": {"icons": 1, "nothing": 0},
        "skipped": 2,
        "skipped_by_reason": {"cannot be decoded": 1, "not a PNG, JPEG, WebP or TIFF file": 1},
        "skipped_files": [
            {"file": "dogs/broken.png", "reason": "cannot be decoded"},
            {"file": "dogs/fake.png", "reason": "not a PNG, JPEG, WebP or TIFF file"},
        ],
        "other_files": {".txt": 1, ".db": 1},
        "pillow": report["pillow"],
    }
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("set: 4 pictures, 12 x 12 RGB png, 0.0 MB in 1 shard")
    assert [line.split(None, 1) for line in lines[1:5]] == [
        ["1", "enlarged: smaller than 12 x 12"],
        ["1", "excluded"],
        ["took", "nothing away: nothing"],
        ["2", "skipped"],
    ]
    assert lines[5].strip() == "1 cannot be decoded: dogs/broken.png"
    assert lines[7].strip() == "2 other files: 1 .db, 1 .txt"
    assert lines[8].endswith("report.json")


def test_the_report_names_a_few_and_prints_safely(tmp_path, capsys):
    names = ["a\x1b[31m.png", "b.png", "c.png", "d.png", os.fsdecode(b"e\xff.png")]
    folder = make_folder(tmp_path / "p", dict.fromkeys(names, b"") | {"good.png": picture(0)})
    run(folder, tmp_path / "set")
    printed = capsys.readouterr().out
    assert r"5 not a PNG, JPEG, WebP or TIFF file: a\x1b[31m.png, b.png, c.png, ..." in printed
    listed = json.loads((tmp_path / "set" / "report.json").read_text())["skipped_files"]
    assert [one["file"] for one in listed] == names


def test_folder_zip_and_tar_make_equal_bytes(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        for name, data in reversed(FILES.items()):
            archive.writestr(name, data)
    with tarfile.open(tmp_path / "p.tar.gz", "w:gz") as archive:
        archive.add(folder, ".")
    for name in ("pictures", "p.zip", "p.tar.gz"):
        run(tmp_path / name, tmp_path / f"set of {name}", labels="folders", exclude=("Thumbs*",))
    expected = contents(tmp_path / "set of pictures")
    assert set(expected) == {"000000.tar", "aspects.npy", "index.json", "kept.png", "samples.npy"}
    assert contents(tmp_path / "set of p.zip") == expected
    assert contents(tmp_path / "set of p.tar.gz") == expected


def test_workers_change_nothing(folder, tmp_path):
    make_folder(folder, {f"more/{n:02d}.png": picture(n) for n in range(20)})
    options = {"labels": "folders", "samples_per_shard": 7, "exclude": ("Thumbs.db",)}
    reports = {n: run(folder, tmp_path / f"set{n}", num_workers=n, **options) for n in (0, 2)}
    assert contents(tmp_path / "set0") == contents(tmp_path / "set2")
    assert len(load_index(tmp_path / "set0").shards) == 4
    assert reports[0].skipped == reports[2].skipped


@pytest.mark.parametrize(
    ("channels", "format"),
    [(1, "png"), (1, "jpg"), (1, "webp"), (3, "jpg"), (3, "webp"), (4, "png"), (4, "webp")],
)
def test_channels_formats_and_oblong_targets(channels, format, folder, tmp_path):
    run(folder, tmp_path / "set", resolution=(12, 16), channels=channels, format=format)
    index = load_index(tmp_path / "set")
    assert (index.channels, index.picture_format, index.resolution) == (channels, format, (12, 16))
    pixels = Reader(index).read(3)
    assert pixels.shape == (12, 16, channels)
    with Image.open(io.BytesIO(FILES["dogs/small.webp"])) as source:
        expected = source.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels]).resize((16, 12))
    difference = np.abs(pixels.reshape(12, 16, -1) - np.asarray(expected, int).reshape(12, 16, -1))
    assert difference.max() <= (0 if format != "jpg" else 30)


def test_labels(folder, tmp_path, capsys):
    run(folder, tmp_path / "folders", labels="folders")
    index = load_index(tmp_path / "folders")
    assert index.label_names == ("cats", "dogs")
    assert index.rows["label"].tolist() == [0, 0, 0, 1, 1]
    assert "2 classes\n" in capsys.readouterr().out
    pictures = [name for name in FILES if not name.endswith((".txt", ".db"))]
    (tmp_path / "l.csv").write_text("file,label\n" + "".join(f"{n},{len(n)}\n" for n in pictures))
    (tmp_path / "l.json").write_text(json.dumps({"labels": [[n, len(n)] for n in pictures]}))
    for name in ("l.csv", "l.json"):
        run(folder, tmp_path / f"set {name}", labels=str(tmp_path / name))
        index = load_index(tmp_path / f"set {name}")
        assert index.rows["label"].tolist() == [len(name) for name in KEPT]
        assert len(index.label_names) == 17
        assert "17 classes, 13 of them empty\n" in capsys.readouterr().out
    (tmp_path / "l.json").write_text('{"x.png": 1}')
    with pytest.raises(ValueError, match=r"'cats/a.png' .and 6 more. is not in it"):
        run(folder, tmp_path / "never", labels=str(tmp_path / "l.json"))


def test_crops_are_samples_of_one_source(folder, tmp_path):
    report = run(folder, tmp_path / "set", crop="three")
    assert (report.pictures, report.kept) == (5, 15)
    assert [one["source"] for one in about(tmp_path / "set")] == [name for name in KEPT for _ in range(3)]
    # The shapes are those of the sources, once each and sorted: generated pictures may draw theirs from them.
    aspects = np.load(tmp_path / "set" / "aspects.npy")
    assert aspects == pytest.approx(sorted([20 / 24] * 3 + [9 / 7, 40 / 16]))
    assert load_index(tmp_path / "set").about.crop == "three"


def test_the_mean_shape_is_remembered(folder, tmp_path):
    run(folder, tmp_path / "set", crop="ratio")
    expected = np.mean([20 / 24] * 3 + [9 / 7, 40 / 16])
    assert load_index(tmp_path / "set").about.aspect_ratio == pytest.approx(expected, abs=1e-6)


def test_machinerays_variants_stand_beside_each_picture(folder, tmp_path):
    report = run(folder, tmp_path / "set", variants="machineray", crop="squash")
    assert (report.pictures, report.kept) == (5, 35)
    index = load_index(tmp_path / "set")
    assert len(np.load(tmp_path / "set" / "aspects.npy")) == 5
    pixels = [Reader(index).read(number) for number in range(7)]
    assert all(not np.array_equal(pixels[0], other) for other in pixels[1:])
    with pytest.raises(ValueError, match=r"variants=machineray turns and tints .* channels=3 and a square"):
        run(folder, tmp_path / "oblong", variants="machineray", resolution=(12, 16))


def picture_of(seed):
    return np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)


def test_filters_are_counted_and_drawn(tmp_path, capsys):
    one, other = (
        np.asarray(Image.fromarray(picture_of(seed)).resize((64, 64), Image.Resampling.BICUBIC))
        for seed in (0, 1)
    )
    files = {
        "a.png": save(one),
        "b copy.jpg": save(one, "JPEG"),
        "c empty.png": save(np.full((64, 64, 3), 200, np.uint8)),
        "d small.png": picture(9, 20, 20),
        "e other.png": save(other),
    }
    folder = make_folder(tmp_path / "p", files)
    options = {"min_side": 32, "max_emptiness": 0.98, "duplicates": 4}
    report = run(folder, tmp_path / "set", **options)
    assert {one.file: one.reason for one in report.skipped} == {
        "b copy.jpg": "a copy of another picture",
        "c empty.png": "nearly empty",
        "d small.png": "too small",
    }
    assert report.skipped[0].detail == "of a.png"
    assert "1 a copy of another picture: b copy.jpg" in capsys.readouterr().out
    for name in ("kept", "dropped", "borderline"):
        with Image.open(tmp_path / "set" / f"{name}.png") as sheet:
            assert sheet.width > 200


def test_an_overlay_that_pictures_share_is_found(tmp_path):
    rng = np.random.default_rng(0)
    files = {}
    for number in range(40):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        pixels = np.asarray(coarse.resize((256, 256), Image.Resampling.BICUBIC)).copy()
        if number % 2:
            pixels[100:150, 60:200:8] = 255 - pixels[100:150, 60:200:8] // 4
        files[f"{number:02d}.png"] = save(pixels)
    report = run(make_folder(tmp_path / "p", files), tmp_path / "set", max_watermark=0.3)
    assert {one.file for one in report.skipped} == {f"{number:02d}.png" for number in range(1, 40, 2)}
    assert {one.reason for one in report.skipped} == {"a watermark, by the looks"}


def test_captions(folder, tmp_path):
    (folder / "cats" / "a.txt").write_text("a cat\n")
    run(folder, tmp_path / "txt", captions="txt")
    (tmp_path / "c.csv").write_text("file,caption\n./cats\\a.png,a cat\nnowhere.png,none\n")
    (tmp_path / "c.json").write_text('{"cats/a.png": "a cat"}')
    for name in ("c.csv", "c.json"):
        run(folder, tmp_path / name[2:], captions=str(tmp_path / name))
    for name in ("txt", "csv", "json"):
        assert json.loads((tmp_path / name / "report.json").read_text())["captions"] == 1
        with tarfile.open(tmp_path / name / "000000.tar") as archive:
            texts = {m.name: archive.extractfile(m).read() for m in archive.getmembers() if "txt" in m.name}
        assert texts == {"00000000.txt": b"a cat"}
    (tmp_path / "c.json").write_text("[]")
    for text, captions in [
        ("does not exist; give txt, a .csv or a .json", "none.csv"),
        ("is not {path: caption}", str(tmp_path / "c.json")),
    ]:
        with pytest.raises((ValueError, FileNotFoundError), match=text):
            run(folder, tmp_path / "never", captions=captions)


def test_provenance_goes_along(folder, tmp_path):
    line = {"file": "cats/a.png", "artist": "A. Nonymous", "licence": "CC0"}
    (folder / "provenance.jsonl").write_text(json.dumps(line) + "\n")
    (folder / "CREDITS.md").write_text("A. Nonymous\n")
    run(folder, tmp_path / "set")
    found = about(tmp_path / "set")
    assert found[0]["provenance"] == {"artist": "A. Nonymous", "licence": "CC0"}
    assert "provenance" not in found[1]
    assert (tmp_path / "set" / "CREDITS.md").read_text() == "A. Nonymous\n"
    (folder / "provenance.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match=r"provenance.jsonl, line 1 is not JSON with a 'file'"):
        run(folder, tmp_path / "never")


def test_conditions(folder, tmp_path):
    names = [name for name in FILES if not name.endswith((".txt", ".db"))]
    rows = "".join(f"{name},{number},{number / 2}\n" for number, name in enumerate(names))
    (tmp_path / "l.csv").write_text("file,year,warmth\n" + rows)
    run(folder, tmp_path / "numbers", labels=str(tmp_path / "l.csv"))
    index = load_index(tmp_path / "numbers")
    assert index.about.condition_names == ("year", "warmth")
    assert index.conditions.tolist() == [[n, n / 2] for n in (names.index(name) for name in KEPT)]
    assert about(tmp_path / "numbers")[1]["condition"] == [1.0, 0.5]
    tags = {name: ["cat"] if "cats" in name else ["dog", "big"] for name in names}
    (tmp_path / "l.json").write_text(json.dumps(tags))
    run(folder, tmp_path / "tags", labels=str(tmp_path / "l.json"))
    index = load_index(tmp_path / "tags")
    assert index.about.condition_names == ("big", "cat", "dog")
    assert index.conditions[[0, 3]].tolist() == [[0, 1, 0], [1, 0, 1]]


def test_shards_of_another_pipeline_are_read(folder, tmp_path):
    """A folder of WebDataset tars is a source, with the classes and captions that stand in it."""
    import webdataset

    (tmp_path / "shards").mkdir()
    for number in range(2):
        with webdataset.TarWriter(str(tmp_path / "shards" / f"{number}.tar"), encoder=False) as tar:
            for key in range(3):
                data = picture(10 * number + key)
                tar.write(
                    {"__key__": f"k{key}", "png": data, "cls": str(key).encode(), "txt": b"no. %d" % key}
                )
    report = run(tmp_path / "shards", tmp_path / "set", labels="cls", captions="txt")
    assert report.kept == 6
    index = load_index(tmp_path / "set")
    assert index.rows["label"].tolist() == [0, 1, 2, 0, 1, 2]
    assert [one["source"] for one in about(tmp_path / "set")][:4] == [
        "0.tar/k0.png",
        "0.tar/k1.png",
        "0.tar/k2.png",
        "1.tar/k0.png",
    ]
    run(folder, tmp_path / "pictures first", exclude=("Thumbs.db",))
    with pytest.raises(ValueError, match=r"labels=cls: 'cats/a.png' .and 6 more. has no .cls file beside it"):
        run(folder, tmp_path / "never", labels="cls")


class StoppedError(RuntimeError):
    """Stands for a kill: whatever is on the disk then is what the next run finds."""


OPTIONS = [
    {"crop": "three", "duplicates": 4, "min_side": 18},
    {"variants": "machineray", "crop": "squash", "labels": "folders", "exclude": ("Thumbs.db",)},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_a_run_that_broke_off_is_gone_on_with(folder, tmp_path, monkeypatch, capsys, options):
    make_folder(folder, {f"more/{n:02d}.png": picture(n % 17, 20, 30) for n in range(24)})
    options = {"samples_per_shard": 4, **options}
    run(folder, tmp_path / "whole", **options)
    from kaleidogan.data import writing

    finish = writing.Aside.finish
    left = [0]

    def finish_some(aside, *arguments):
        finish(aside, *arguments)
        left[0] -= 1
        if left[0] < 0:
            raise StoppedError

    monkeypatch.setattr(writing.Aside, "finish", finish_some)
    for many in (0, 2, 1, 3):
        left[0] = many
        with pytest.raises(StoppedError):
            run(folder, tmp_path / "set", **options)
        assert not (tmp_path / "set").exists()
    # What a kill leaves of a shard that was being written, and of the line that tells of it.
    aside = tmp_path / ".set.partial"
    (aside / "set" / "000010.tar").write_bytes(b"half")
    with (aside / "journal.jsonl").open("a") as stream:
        stream.write('{"shard": {"na')
    left[0] = 1000
    capsys.readouterr()
    run(folder, tmp_path / "set", **options)
    assert "going on with what was begun: " in capsys.readouterr().out
    everything = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "set").iterdir()} == everything
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pictures", "set", "whole"]


@pytest.mark.slow
def test_a_killed_run_makes_the_same_set(tmp_path):
    """Ten times SIGKILL at random moments, and then to the end: every file is the same."""
    folder = make_folder(tmp_path / "p", {f"{n:03d}.png": picture(n, 300, 400) for n in range(300)})
    command = [Path(sys.executable).with_name("kaleidogan"), "prepare", f"source={folder}", "resolution=64"]
    command += ["crop=three", "duplicates=4", "samples_per_shard=20", "num_workers=2"]
    subprocess.run([*command, f"out={tmp_path}/whole"], check=True, timeout=120, capture_output=True)
    moments = np.random.default_rng(0)
    kills = went_on = 0
    while kills < 10:
        started = subprocess.Popen([*command, f"out={tmp_path}/set"], stdout=subprocess.DEVNULL)
        try:
            started.wait(float(moments.uniform(0.8, 2.2)))
            break
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()
            kills += 1
            went_on += (tmp_path / ".set.partial" / "journal.jsonl").is_file()
    assert kills >= 3, "it ended before it was killed"
    assert went_on
    if not (tmp_path / "set").exists():
        subprocess.run([*command, f"out={tmp_path}/set"], check=True, timeout=120, capture_output=True)
    everything = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "set").iterdir()} == everything
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p", "set", "whole"]


def test_other_labels_or_pictures_begin_anew(folder, tmp_path, monkeypatch, capsys):
    from kaleidogan.data import writing

    def stop(aside, *arguments):
        raise StoppedError

    names = [name for name in FILES if not name.endswith((".txt", ".db"))]
    labels = tmp_path / "l.csv"
    options = {"labels": str(labels), "samples_per_shard": 2}
    changes = [
        lambda: labels.write_text("file,label\n" + "".join(f"{name},zoo\n" for name in names)),
        lambda: labels.write_text("file,label\n" + "".join(f"{name},ark\n" for name in names)),
        lambda: (folder / "cats" / "a.png").write_bytes(picture(77)),
    ]
    for change in changes:
        change()
        with monkeypatch.context() as patch:
            patch.setattr(writing.Aside, "seal", stop)
            with pytest.raises(StoppedError):
                run(folder, tmp_path / "set", **options)
        assert "going on" not in capsys.readouterr().out
    run(folder, tmp_path / "set", **options)
    assert "going on with what was begun: 7 of 7" in capsys.readouterr().out
    assert load_index(tmp_path / "set").label_names == ("ark",)


def test_a_prepared_set_can_be_prepared_again(folder, tmp_path):
    run(folder, tmp_path / "first", labels="folders", exclude=("Thumbs.db",), resolution=(16, 16))
    report = run(tmp_path / "first", tmp_path / "again", labels="cls")
    assert report.kept == 5
    index = load_index(tmp_path / "again")
    assert index.label_names == ("cats", "dogs")
    assert index.rows["label"].tolist() == [0, 0, 0, 1, 1]
    # A set that stands among pictures is none of them.
    run(folder, folder / "inside", exclude=("Thumbs.db",))
    assert run(folder, tmp_path / "third", exclude=("Thumbs.db",)).kept == 5


def test_labels_that_contradict_or_are_empty_are_refused(folder, tmp_path):
    for text, message in [
        ("cats/a.png,1\n./cats/a.png,2\n", "'./cats/a.png' has two labels, 1 and 2"),
        ("cats/a.png,\n", "'cats/a.png' has an empty label"),
    ]:
        (tmp_path / "l.csv").write_text("file,label\n" + text)
        with pytest.raises(ValueError, match=message):
            run(folder, tmp_path / "never", labels=str(tmp_path / "l.csv"))


def test_other_settings_begin_anew(folder, tmp_path, monkeypatch, capsys):
    from kaleidogan.data import writing

    def stop(aside, *arguments):
        raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(writing.Aside, "seal", stop)
        with pytest.raises(StoppedError):
            run(folder, tmp_path / "set")
    run(folder, tmp_path / "set", resolution=(16, 16))
    assert "going on" not in capsys.readouterr().out
    assert load_index(tmp_path / "set").resolution == (16, 16)


def test_two_runs_do_not_write_one_set(folder, tmp_path):
    from kaleidogan.data.writing import open_aside

    with (
        open_aside(tmp_path / "set", "key"),
        pytest.raises(BlockingIOError, match="another process is writing"),
    ):
        run(folder, tmp_path / "set")


def test_errors_leave_nothing_behind(folder, tmp_path):
    (tmp_path / "full").mkdir()
    make_folder(tmp_path / "texts", {"a.txt": b"", "b.gif": b""})
    make_folder(tmp_path / "broken", {f"{n}.png": b"x" for n in range(5)})
    before = sorted(tmp_path.rglob("*"))
    for source, options, error, message in [
        ("none", {}, FileNotFoundError, r"source '.*none' does not exist; give a folder, a zip or a tar"),
        (
            "texts",
            {},
            ValueError,
            r"no pictures in source '.*texts': 2 files were seen; read are .png, .jpg,",
        ),
        ("broken", {"exclude": ("*",)}, ValueError, "no pictures .* 5 files were seen, 5 excluded"),
        (
            "broken",
            {},
            ValueError,
            r"none of the 5 pictures can be used:\n +5 not a PNG.*: 0.png, 1.png, 2.png, ...",
        ),
        ("pictures", {"format": "jpg", "channels": 4}, ValueError, "jpg cannot store .* choose png or webp"),
        ("pictures", {"labels": "folders.csv"}, FileNotFoundError, "labels 'folders.csv' does not exist"),
    ]:
        with pytest.raises(error, match=message):
            run(tmp_path / source, tmp_path / "set", **options)
    with pytest.raises(FileExistsError, match=r"out '.*full' is there already; choose another folder"):
        run(folder, tmp_path / "full")
    assert sorted(tmp_path.rglob("*")) == before


def test_links_alone_are_no_pictures(tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.png").symlink_to("/nowhere")
    with pytest.raises(
        ValueError, match=r"1 files were seen, 1 refused, the first a.png: a link that leads nowhere"
    ):
        run(tmp_path / "p", tmp_path / "set")


def die_at_nine(name, data):
    if name == "9.png":
        os._exit(1)
    return Skipped(name, "for the test")


def test_a_worker_that_dies_is_told_from_a_broken_picture():
    source = Source([], lambda name: b"")
    with pytest.raises(
        RuntimeError, match=r"a worker died at '\d+.png' or a picture soon after.*num_workers=0"
    ):
        list(in_order(source, [f"{n}.png" for n in range(60)], die_at_nine, 2))


SCRIPT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
from kaleidogan.data.preparing.prepare import prepare
assert "torch" not in sys.modules
if __name__ == "__main__":
    prepare(source=sys.argv[1], out=sys.argv[2], resolution=(64, 64), num_workers=2)
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks processes up in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_workers_do_not_outlive_the_command(number, tmp_path):
    folder = make_folder(tmp_path / "p", {"0.png": picture(0, 500, 500)})
    for name in range(1, 20_000):
        (folder / f"{name}.png").hardlink_to(folder / "0.png")
    (tmp_path / "script.py").write_text(SCRIPT)
    started = subprocess.Popen(
        [sys.executable, tmp_path / "script.py", folder, tmp_path / "set"], stderr=subprocess.PIPE
    )
    try:
        children = wait_for_children(started.pid, 2)
        started.send_signal(number)
        _, errors = started.communicate(timeout=20)
    finally:
        started.kill()
    deadline = time.monotonic() + 10
    while alive := [pid for pid in children if is_running(pid)]:
        assert time.monotonic() < deadline, f"{alive} are still there"
        time.sleep(0.05)
    assert not (tmp_path / "set").exists()
    if number == signal.SIGINT:
        assert errors.decode().count("Traceback") == 1
        assert not list(tmp_path.glob(".*.partial"))


def wait_for_children(pid, count):
    """Wait until so many workers are ready: they ignore interrupts then."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ignored = [Path(f"/proc/{child}/status").read_text().partition("SigIgn:")[2] for child in children]
        # The interpreter's own helper process, the resource tracker, ignores them too.
        if sum(int(mask.split()[0], 16) >> signal.SIGINT - 1 & 1 for mask in ignored) > count:
            return children
        time.sleep(0.02)
    raise TimeoutError(f"{pid} has no {count} workers")


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
