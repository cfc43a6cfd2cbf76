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

from kaleidogan.data.prepare import Skipped, _in_order, prepare
from kaleidogan.data.shards import Reader, load_index
from kaleidogan.data.sources import Source


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
    assert (report.kept, report.enlarged, len(index)) == (5, 1, 5)
    assert (index.resolution, index.channels, index.resize_filter) == ((12, 12), 3, "box")
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
    assert settings["num_workers"] == 0
    details = [one.pop("detail", "") for one in report["skipped_files"]]
    assert "truncated" in details[0].lower()
    assert report == {
        "kept": 4,
        "enlarged": 1,
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
    assert set(expected) == {"000000.tar", "index.json", "samples.npy"}
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
        list(_in_order(source, [f"{n}.png" for n in range(60)], die_at_nine, 2))


SCRIPT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
from kaleidogan.data.prepare import prepare
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
