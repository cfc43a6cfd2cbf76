"""Pictures from museums and lists, over real HTTP from a local server that also misbehaves."""

import contextlib
import copy
import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kaleidogan import __version__, cli
from kaleidogan.data.collecting import web
from kaleidogan.data.collecting.collect import collect
from kaleidogan.data.collecting.collection import file_name, slug
from kaleidogan.data.collecting.listing import FREE
from kaleidogan.data.collecting.museums import Artic, Met
from kaleidogan.data.collecting.web import Client
from kaleidogan.data.collecting.works import Rules, Work
from kaleidogan.data.preparing.pictures import upright
from kaleidogan.data.preparing.prepare import prepare
from museum_server import picture, serve

FAST = {"rate": 1e4, "timeout": 5.0}


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(web, "BACKOFF", 0.01)
    with serve() as museums:
        yield museums


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def pictures(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix in (".jpg", ".png", ".webp", ".tif"))


def write_list(path, *addresses, **columns):
    rows = [{"address": a, "licence": "CC0", **columns} for a in addresses]
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


# Museums


def test_the_met_becomes_a_folder_of_pictures_with_their_origins(server, tmp_path, capsys):
    out = tmp_path / "art"
    report = collect(out=str(out), museum="met", base_url=server.met, **FAST)
    expected = [n for n, w in server.owned.items() if w["free"] and w["pictured"]]
    assert (report.kept, len(pictures(out))) == (len(expected), len(expected))
    assert report.left_out == {"not said to be in the public domain": 6, "no picture": 4}
    assert report.failures == ()
    entries = lines(out / "provenance.jsonl")
    assert [entry["file"] for entry in entries] == pictures(out)
    assert entries[0] == {
        "file": "anonymous_study-no-11_11.jpg",
        "title": "Study no. 11",
        "artist": "Anonymous",
        "born": None,
        "died": None,
        "date": "ca. 1871",
        "genre": "Paintings, Painting, Portraits",
        "licence": "public domain (CC0 1.0)",
        "address": f"{server.url}/CRDImages/11.jpg",
        "page": f"{server.url}/art/collection/search/11",
        "museum": "The Metropolitan Museum of Art",
    }
    monet = next(entry for entry in entries if entry["artist"] == "Claude Monet")
    assert (monet["born"], monet["died"]) == (1840, 1926)
    assert (out / "anonymous_study-no-11_11.jpg").read_bytes() == picture(11)
    assert "paul-cezanne_study-no-4_4.jpg" in pictures(out)
    credit = "- Paul C\u00e9zanne - *Study no. 4*, ca. 1864, public domain (CC0 1.0), The Metropolitan"
    assert credit in (out / "CREDITS.md").read_text(encoding="utf-8")
    assert f"art: {len(expected)} pictures" in capsys.readouterr().out
    assert json.loads((out / "report.json").read_text())["left_out_by_reason"] == report.left_out


def test_prepare_reads_what_was_collected(server, tmp_path):
    collect(out=str(tmp_path / "art" / "met"), museum="met", base_url=server.met, limit=3, **FAST)
    collect(out=str(tmp_path / "art" / "artic"), museum="artic", base_url=server.artic, limit=2, **FAST)
    done = prepare(
        source=str(tmp_path / "art"), out=str(tmp_path / "set"), resolution=(16, 16), num_workers=0
    )
    assert (done.kept, done.skipped) == (5, ())


def test_artics_records_artists_and_pictures_are_put_together(server, tmp_path):
    rules = {"style": ("impressionism",), "genre": ("landscape",), "born_after": 1800, "died_before": 1950}
    out = tmp_path / "art"
    report = collect(out=str(out), museum="artic", base_url=server.artic, contact="me@x.org", **rules, **FAST)
    entries = lines(out / "provenance.jsonl")
    assert {(e["artist"], e["born"], e["died"]) for e in entries} == {("Claude Monet", 1840, 1926)}
    assert report.kept == len(entries) > 0
    assert server.asked["/api/v1/agents"] == 1
    # A smaller picture is not asked for enlarged.
    widths = {e["title"]: upright((out / e["file"]).read_bytes()).width for e in entries}
    assert widths == {f"Study no. {number}": 843 if number % 4 else 600 for number in (6, 12, 18, 24)}
    headers = [sent for path, sent in server.seen if path.startswith("/api")]
    assert {sent["AIC-User-Agent"] for sent in headers} == {f"kaleidogan/{__version__} (me@x.org)"}
    assert {sent["User-Agent"] for _, sent in server.seen} == {f"kaleidogan/{__version__} (me@x.org)"}


def test_a_search_goes_on_beyond_what_artic_shows_of_it(tmp_path):
    with serve(count=1230) as server:
        artic = Artic(server.artic)
        found = list(artic.works(Client(rate=1e4), "", Rules(), ()))
        free = [str(n) for n, w in server.owned.items() if w["free"] and w["pictured"]]
        assert [work.id for work in found] == free
        asked = list(artic.works(Client(rate=1e4), "", Rules(made_after=1900, made_before=1903), ()))
        assert {work.made for work in asked} == {(1901, 1901), (1902, 1902)}
        assert server.asked["/api/v1/agents"] == 1


def test_the_mets_pages_and_its_window(monkeypatch):
    with serve(count=25) as server:
        monkeypatch.setattr(Met, "page", 10)
        met = Met(server.met)
        assert [work.id for work in met.works(Client(rate=1e4), "", Rules(), ())] == [
            str(n) for n in range(1, 26)
        ]
        assert (server.asked["/public/collection/v1.1/search"], met.note) == (3, "")
        monkeypatch.setattr(Met, "window", 20)
        assert len(list(met.works(Client(rate=1e4), "", Rules(), ()))) == 20
        assert met.note == "the search finds 25 works and shows 20: narrow it with query"
        dated = met.works(Client(rate=1e4), "monet", Rules(made_after=1860, made_before=1880), ())
        assert [work.id for work in dated] == ["6", "12", "18"]


def test_known_works_are_not_asked_for(server):
    found = list(Met(server.met).works(Client(rate=1e4), "", Rules(), {str(n) for n in range(1, 29)}))
    assert [work.id for work in found] == ["29", "30"]
    assert sum(count for path, count in server.asked.items() if "objects" in path) == 2


def test_a_withdrawn_record_is_left_out_and_a_broken_one_is_tried_again(server, tmp_path):
    server.faults["/public/collection/v1/objects/1"] = "missing"
    server.faults["/public/collection/v1/objects/2"] = "no_json"
    options = {"museum": "met", "base_url": server.met, "limit": 3, "retries": 1, **FAST}
    report = collect(out=str(tmp_path / "art"), **options)
    assert report.left_out["no record: the server answered 404"] == 1
    assert [(one.id, one.reason) for one in report.failures] == [("2", "the answer is no JSON")]
    del server.faults["/public/collection/v1/objects/2"]
    report = collect(out=str(tmp_path / "art"), **options | {"limit": 4})
    assert (report.kept, report.failures) == (4, ())
    assert server.asked["/public/collection/v1/objects/1"] == 1


STRANGE = (None, True, -1e300, float("inf"), "x", "9" * 40, [None], {}, [{"term": 1, "id": []}])


@pytest.mark.slow
@pytest.mark.parametrize("museum", ["met", "artic"])
def test_answers_of_strange_kinds_end_in_nothing_worse_than_an_error(museum, tmp_path):
    with serve(count=1) as server:
        options = {"museum": museum, "base_url": getattr(server, museum), "retries": 0, **FAST}
        collect(out=str(tmp_path / "good"), **options)
        paths = {urlsplit(path).path: path for path, _ in server.seen[:-1]}
        good = {path: Client(rate=1e4).read_json(server.url + asked) for path, asked in paths.items()}
        assert len(good) == 2
        broken = [(path, changed) for path, answer in good.items() for changed in variants(answer)]
        for number, (path, changed) in enumerate(broken):
            server.answers = {path: changed}
            with contextlib.suppress(OSError):
                collect(out=str(tmp_path / str(number)), **options)
    assert number > 200


def variants(answer):
    """The answer with each of its values, at any depth, replaced by strange ones."""
    yield from STRANGE
    places = {dict: lambda: answer.items(), list: lambda: enumerate(answer)}.get(type(answer), tuple)()
    for key, value in places:
        for broken in variants(value):
            changed = copy.copy(answer)
            changed[key] = broken
            yield changed


# Lists


def test_a_list_names_each_address_that_failed(server, tmp_path, capsys):
    faults = {
        "1.jpg": "missing",
        "2.jpg": "no_picture",
        "3.jpg": "cut_and_unsaid",
        "4.jpg": "loop",
        "5.jpg": "to_file",
        "6.jpg": "fails_twice",
    }
    server.faults = {f"/files/{name}": fault for name, fault in faults.items()}
    addresses = [f"{server.url}/files/{name}" for name in (*faults, "7.png", "8.webp", "9.tiff")]
    path = write_list(
        tmp_path / "list.csv", *addresses, "", "ftp://x/y.jpg", addresses[6], artist="Ma\u00dfys"
    )
    report = collect(out=str(tmp_path / "art"), list=path, **FAST)
    assert [Path(name).suffix for name in pictures(tmp_path / "art")].count(".jpg") == 1
    assert {Path(name).suffix for name in pictures(tmp_path / "art")} == {".jpg", ".png", ".webp", ".tif"}
    assert report.left_out == {"no address": 1, "the address of an earlier row": 1}
    assert report.failed() == {
        "cannot be decoded": 1,
        "not a PNG, JPEG, WebP or TIFF file": 1,
        "not an http or https address": 2,
        "redirected more than 5 times": 1,
        "the server answered 404": 1,
    }
    shown = capsys.readouterr().out
    assert f"the server answered 404: {server.url}/files/1.jpg" in shown
    saved = json.loads((tmp_path / "art" / "report.json").read_text())
    assert (saved["kept"], saved["failed"], len(saved["failures"])) == (4, 6, 6)
    assert all(name.startswith("massys_untitled_") for name in pictures(tmp_path / "art"))


def test_a_parquet_list_is_read_like_a_csv(server, tmp_path):
    rows = {
        "URL": [f"{server.url}/files/{n}.jpg" for n in range(1, 5)],
        "Title": ["A", None, "C", "D"],
        "born": [1840.0, None, 1900.0, 1900.0],
        "license": ["Public domain", "CC0 1.0", "CC BY 4.0", "not in the public domain"],
        "other": [[1], [2], [3], [4]],
    }
    pq.write_table(pa.table(rows), tmp_path / "list.parquet")
    report = collect(out=str(tmp_path / "art"), list=str(tmp_path / "list.parquet"), **FAST)
    entries = lines(tmp_path / "art" / "provenance.jsonl")
    assert sorted((e["title"], e["born"], e["licence"]) for e in entries) == [
        ("", None, "CC0 1.0"),
        ("A", 1840, "Public domain"),
    ]
    assert report.left_out == {"not said to be in the public domain": 2}


def test_a_list_is_chosen_from_by_the_same_rules(server, tmp_path):
    with (tmp_path / "list.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["address", "artist", "date", "born", "died", "genre", "style"])
        for number, (born, died) in enumerate([(1850, 1930), (1866, 1944), (1900, 1949), (1900, 1950)]):
            address = f"{server.url}/files/{number}.jpg"
            writer.writerow([address, f"Artist {number}", "1910-12", born, died, "abstract", ""])
    rules = {"genre": ("abstract",), "born_after": 1850, "born_before": 1900, "died_before": 1950}
    options = {"list": str(tmp_path / "list.csv"), "public_domain": False, **rules, **FAST}
    report = collect(out=str(tmp_path / "art"), **options)
    assert [e["artist"] for e in lines(tmp_path / "art" / "provenance.jsonl")] == ["Artist 1", "Artist 2"]
    assert sum(report.left_out.values()) == 2
    later = collect(out=str(tmp_path / "later"), **options | {"made_after": 1909, "made_before": 1912})
    assert later.kept == 0


@pytest.mark.parametrize(
    ("words", "free"),
    [
        ("Public domain", True),
        ("PUBLIC DOMAIN MARK 1.0", True),
        ("public domain (CC0 1.0)", True),
        ("CC0", True),
        ("cc0 1.0", True),
        ("https://creativecommons.org/publicdomain/zero/1.0/", True),
        ("not in the public domain", False),
        ("CC BY 4.0", False),
        ("", False),
        ("https://creativecommons.org/licenses/by/4.0/", False),
        ("public domain in some countries only", False),
    ],
)
def test_licences_that_say_public_domain(words, free):
    assert (FREE.fullmatch(words) is not None) == free


# Going on


def test_a_second_run_loads_nothing_again_and_a_higher_limit_goes_on(server, tmp_path):
    options = {"out": str(tmp_path / "art"), "museum": "met", "base_url": server.met, **FAST}
    collect(limit=3, **options)
    server.asked.clear()
    collect(limit=3, **options)
    assert not server.asked
    first = contents(tmp_path / "art")
    collect(limit=6, **options)
    assert len(pictures(tmp_path / "art")) == 6
    assert all((tmp_path / "art" / name).read_bytes() == first[name] for name in first if name[-4:] == ".jpg")
    collect(out=str(tmp_path / "whole"), museum="met", base_url=server.met, limit=6, **FAST)
    assert contents(tmp_path / "whole").keys() == contents(tmp_path / "art").keys()
    for name in ("provenance.jsonl", "journal.jsonl", "CREDITS.md"):
        assert contents(tmp_path / "whole")[name] == contents(tmp_path / "art")[name]


def test_a_deleted_picture_stays_deleted_and_makes_room(server, tmp_path):
    options = {"out": str(tmp_path / "art"), "museum": "met", "base_url": server.met, "limit": 3, **FAST}
    collect(**options)
    gone = pictures(tmp_path / "art")[0]
    (tmp_path / "art" / gone).unlink()
    report = collect(**options)
    assert (report.kept, report.removed) == (3, 1)
    assert gone not in pictures(tmp_path / "art")
    assert gone not in (tmp_path / "art" / "provenance.jsonl").read_text()
    assert "1 deleted since they were loaded" in str(report)


def test_failures_are_tried_again(server, tmp_path):
    server.faults["/CRDImages/1.jpg"] = "always_500"
    options = {"out": str(tmp_path / "art"), "museum": "met", "base_url": server.met, "retries": 1, **FAST}
    first = collect(**options)
    assert [one.address for one in first.failures] == [f"{server.met[:-18]}/CRDImages/1.jpg"]
    server.faults.clear()
    assert collect(**options).kept == first.kept + 1


def test_a_dead_server_ends_the_run_and_loses_nothing(server, tmp_path, capsys):
    options = {"out": str(tmp_path / "art"), "museum": "met", "base_url": server.met, "retries": 0, **FAST}
    server.faults = {f"/CRDImages/{n}.jpg": "always_500" for n in range(3, 31)}
    with pytest.raises(OSError, match="10 works in a row could not be had, the last: the server answered"):
        collect(**options)
    assert len(pictures(tmp_path / "art")) == 2
    assert "2 pictures" in capsys.readouterr().out
    assert "10 works" in json.loads((tmp_path / "art" / "report.json").read_text())["stopped"]
    server.faults.clear()
    collect(**options)
    collect(**options | {"out": str(tmp_path / "whole")})
    for name in ("provenance.jsonl", *pictures(tmp_path / "whole")):
        assert (tmp_path / "art" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_challenge_stops_at_the_first_picture(server, tmp_path):
    server.faults = {
        f"/iiif/2/aic-{n}/full/{w},/0/default.jpg": "challenge" for n in range(31) for w in (600, 843)
    }
    with pytest.raises(
        OSError, match="challenge for browsers, and gives no picture; what was loaded is safe"
    ):
        collect(out=str(tmp_path / "art"), museum="artic", base_url=server.artic, **FAST)
    assert sum(count for path, count in server.asked.items() if "iiif" in path) == 1


def start(folder, code):
    folder.mkdir(exist_ok=True)
    return subprocess.Popen([sys.executable, "-c", code], cwd=folder, stdout=subprocess.DEVNULL)


def start_met(folder, server):
    options = {"museum": "met", "base_url": server.met, "out": "art", **FAST}
    return start(folder, f"from kaleidogan.data.collecting.collect import collect; collect(**{options})")


@pytest.mark.slow
def test_a_run_that_is_killed_and_gone_on_with_ends_with_the_same_bytes(tmp_path):
    with serve(count=60) as server:
        assert start_met(tmp_path / "whole", server).wait(60) == 0
        server.delay = 0.01
        for number in (4, 15):
            process = start_met(tmp_path / "killed", server)
            end = time.monotonic() + 60
            while len(list(tmp_path.glob("killed/art/*.jpg"))) < number:
                assert process.poll() is None
                assert time.monotonic() < end
                time.sleep(0.002)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        half = contents(tmp_path / "killed" / "art")
        assert "report.json" not in half
        server.asked.clear()
        assert start_met(tmp_path / "killed", server).wait(60) == 0
        whole = contents(tmp_path / "whole" / "art")
        assert contents(tmp_path / "killed" / "art") == whole
        # What was being written when the process died may be loaded twice.
        loaded = sum(count for path, count in server.asked.items() if "CRD" in path)
        assert loaded <= sum(name.endswith(".jpg") for name in whole.keys() - half.keys()) + 1


def test_a_torn_journal_and_a_torn_picture_are_mended(server, tmp_path):
    options = {"museum": "met", "base_url": server.met, "limit": 5, **FAST}
    collect(out=str(tmp_path / "art"), **options)
    whole = contents(tmp_path / "art")
    journal = whole["journal.jsonl"]
    for cut in (len(journal) - 1, len(journal) - 300, 10, 0):
        (tmp_path / "art" / "journal.jsonl").write_bytes(journal[:cut])
        (tmp_path / "art" / ".x.jpg.part").write_bytes(b"half")
        collect(out=str(tmp_path / "art"), **options)
        assert contents(tmp_path / "art") == whole


def test_a_list_that_ends_badly_loses_nothing(server, tmp_path):
    path = tmp_path / "list.csv"
    path.write_bytes(f"address,licence\n{server.url}/files/1.jpg,CC0\n".encode() + b"x" * 200_000)
    with pytest.raises(ValueError, match="cannot be read as a CSV in UTF-8: field larger than field limit"):
        collect(out=str(tmp_path / "art"), list=str(path), **FAST)
    assert len(lines(tmp_path / "art" / "provenance.jsonl")) == 1
    assert "cannot be read" in json.loads((tmp_path / "art" / "report.json").read_text())["stopped"]


def test_another_choice_is_refused_once_there_are_pictures(server, tmp_path):
    options = {"out": str(tmp_path / "art"), "museum": "met", "base_url": server.met, **FAST}
    assert collect(genre=("nothing",), **options).kept == 0
    assert collect(limit=1, **options).left_out == {}
    with pytest.raises(ValueError, match=r'genre: \[\] -> \["landscape"\]'):
        collect(genre=("landscape",), **options)
    (tmp_path / "art" / "journal.jsonl").write_text('{"choice": {}}\n{"kept": 1}\n')
    with pytest.raises(ValueError, match="is damaged"):
        collect(**options)


# Mistakes


def test_settings_that_do_not_fit_are_refused(server, tmp_path):
    out = {"out": str(tmp_path / "art")}
    path = write_list(tmp_path / "list.csv", "http://x/1.jpg")
    for options, words in (
        ({}, "set museum=met or museum=artic, or list=FILE.csv"),
        ({"museum": "met", "list": path}, "and not both"),
        ({"list": path, "query": "x"}, "query=x: a list has no search"),
        ({"list": path, "base_url": "http://x"}, "a list has no search"),
    ):
        with pytest.raises(ValueError, match=words):
            collect(**out, **options)
    (tmp_path / "art").mkdir()
    (tmp_path / "art" / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="holds other things than a collection; choose another folder"):
        collect(museum="met", base_url=server.met, **out)


def test_lists_that_cannot_be_read_are_refused(tmp_path, monkeypatch):
    out = {"out": str(tmp_path / "art")}
    with pytest.raises(FileNotFoundError, match=r"does not exist; give a \.csv or \.parquet file"):
        collect(list=str(tmp_path / "none.csv"), **out)
    for name, text, words in (
        ("a.csv", b"link,licence\nx,CC0\n", "no column address .or url.; its columns are: link, licence"),
        ("b.csv", b"address\nx\n", "no column licence.*or set public_domain=false"),
        ("c.csv", b"", "no column address"),
        ("d.csv", b"address,licence\n\xff\xfe,CC0\n", "cannot be read as a CSV in UTF-8"),
        ("e.txt", b"address\n", "ends in neither .csv nor .parquet"),
        ("f.parquet", b"address\n", "cannot be read as Parquet"),
    ):
        (tmp_path / name).write_bytes(text)
        with pytest.raises(ValueError, match=words):
            collect(list=str(tmp_path / name), **out)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"pip install 'kaleidogan\[parquet\]', or save the list as a .csv"):
        collect(list=str(tmp_path / "f.parquet"), **out)
    assert not (tmp_path / "art").exists()


def test_the_command_says_mistakes_on_one_screen(folder, capsys):
    for arguments, words in (
        (["museum=mett", "out=x"], "did you mean met?"),
        (["museum=met", "out=x", "rules=magnt"], "did you mean rules=magnet?"),
        (["museum=met", "out=x", "rate=0"], "rate=0"),
        (["museum=met"], "out is not set"),
        (["museum=met", "out=x", "born_afer=1800"], "did you mean born_after?"),
        (["museum=met", "out=x", "base_url=http://127.0.0.1:9", "retries=0"], "Connection refused"),
    ):
        with pytest.raises(SystemExit):
            cli.run("collect", arguments, program="kaleidogan collect")
        message = capsys.readouterr().err
        assert words in message
        assert "Traceback" not in message


def test_what_is_typed_reaches_the_search(server, tmp_path):
    server.owned[6]["title"] = "L'\u00e9t\u00e9, c'est fini"
    settings = ["collect", "museum=met", f"base_url={server.met}", "out=art", "rate=1e4", "limit=1"]
    settings += ["query=l'\u00e9t\u00e9, c'est", "rules=ganscapes", "style=[]"]
    code = f"import sys; sys.argv[1:] = {settings}; from kaleidogan.cli import main; main()"
    assert start(tmp_path / "x", code).wait(60) == 0
    assert pictures(tmp_path / "x" / "art") == ["claude-monet_l-ete-c-est-fini_6.jpg"]


# Names and credits


def test_names_are_safe_on_every_system():
    assert slug("Vincent van Gogh", 40) == "vincent-van-gogh"
    assert slug("../../etc/passwd\n", 40) == "etc-passwd"
    assert slug("\u845b\u98fe\u5317\u658e", 40) == ""
    assert slug("x" * 100, 40) == "x" * 40
    assert slug("a" * 39 + " b", 40) == "a" * 39
    assert file_name(Work("../7", "http://x"), b"\xff\xd8") == "unknown_untitled_7.jpg"


def test_credits_do_not_break_on_strange_titles(server, tmp_path):
    title = "*A* [link](http://evil) <script>\nline"
    path = write_list(tmp_path / "list.csv", f"{server.url}/files/1.jpg", title=title, page="javascript:x")
    collect(out=str(tmp_path / "art"), list=path, **FAST)
    credit = (tmp_path / "art" / "CREDITS.md").read_text().splitlines()[-1]
    assert credit == r"- artist not known - *\*A\* \[link\](http://evil) \<script\> line*, CC0"
    assert lines(tmp_path / "art" / "provenance.jsonl")[0]["title"] == title.replace("\n", " ")
