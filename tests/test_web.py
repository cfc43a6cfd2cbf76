"""Addresses, read politely from a local server that misbehaves."""

import time

import pytest

from kaleidogan.data.collecting import web
from kaleidogan.data.collecting.web import Client, FetchError, RefusedError
from museum_server import picture, serve


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(web, "BACKOFF", 0.01)
    with serve() as museums:
        yield museums


def read(server, name, fault, **options):
    server.faults[f"/files/{name}"] = fault
    return Client(**{"rate": 1e4, "timeout": 2.0} | options).read(f"{server.url}/files/{name}")


@pytest.mark.parametrize(
    ("fault", "number", "tries"), [("fails_twice", 1, 3), ("cut_once", 3, 2), ("forbidden_once", 2, 2)]
)
def test_passing_faults_are_got_over(server, fault, number, tries):
    assert read(server, "1.jpg", fault, cooldowns={403: 0.02}) == picture(number)
    assert server.asked["/files/1.jpg"] == tries


def test_retry_after_is_waited_for(server):
    start = time.monotonic()
    assert read(server, "1.jpg", "busy") == picture(2)
    assert time.monotonic() - start >= 1


def test_a_date_to_retry_after_is_understood():
    assert web._seconds("7") == 7
    assert web._seconds("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert web._seconds("Wed, 21 Oct 2115 07:28:00 GMT") > 1e9
    assert web._seconds("soon") == web._seconds("") == 0


def test_each_retry_waits_twice_as_long(server, monkeypatch):
    monkeypatch.setattr(web, "BACKOFF", 0.1)
    with pytest.raises(FetchError, match="the server answered 503"):
        read(server, "1.jpg", "always_500", retries=3)
    waits = [b - a for a, b in zip(server.times, server.times[1:], strict=False)]
    assert [round(wait, 1) for wait in waits] == [0.1, 0.2, 0.4]


@pytest.mark.parametrize(
    ("fault", "says", "tries"),
    [
        ("missing", "the server answered 404", 1),
        ("forbidden", "the server answered 403", 1),
        ("loop", "redirected more than 5 times", 6),
        ("to_file", "not an http or https address (file:)", 1),
        ("announced_large", "larger than 64 MiB (1099511627776 bytes)", 1),
        ("endless", "larger than 64 MiB", 1),
        ("cut", "no connection, or one that broke", 2),
        ("stall", "timed out", 2),
        ("always_500", "the server answered 503", 2),
    ],
)
def test_lasting_faults_are_named(server, fault, says, tries):
    with pytest.raises(FetchError) as failed:
        read(server, "1.jpg", fault, retries=1, timeout=0.3)
    assert str(failed.value) == says
    assert server.asked["/files/1.jpg"] == tries


def test_a_drip_does_not_hold_the_run(server, monkeypatch):
    monkeypatch.setattr(web, "SLOWEST", 1)
    start = time.monotonic()
    with pytest.raises(FetchError, match="timed out"):
        read(server, "1.jpg", "drip", retries=0, timeout=0.3)
    assert time.monotonic() - start < 1.5


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("busy_for_long", "127.0.0.1:[0-9]+ asks to be left alone for 4000 s"),
        ("challenge", "answers programs with a challenge for browsers"),
        ("forbidden", "the server answered 403, its word for too many requests"),
    ],
)
def test_a_server_that_wants_no_more_is_left_alone(server, fault, says):
    with pytest.raises(RefusedError, match=says):
        read(server, "1.jpg", fault, retries=1, cooldowns={403: 0.01})


def test_redirects_are_followed(server):
    assert read(server, "1.jpg", "moved") == picture(9, "PNG")
    assert web._redirected("http://x/a/b", "c?d=1") == "http://x/a/c?d=1"
    assert web._redirected("http://x/a", "https://y/b") == "https://y/b"
    with pytest.raises(FetchError, match="redirected from https to http"):
        web._redirected("https://x/a", "http://x/a")


@pytest.mark.parametrize("address", ["ftp://x/1.jpg", "file:///etc/hostname", "data:,x"])
def test_only_web_addresses_are_read(address):
    with pytest.raises(FetchError, match="not an http or https address"):
        Client().read(address)


@pytest.mark.parametrize("address", ["", "painting.jpg", "http://", "http://[x/", "http://\x00/"])
def test_what_is_no_address_is_said_to_be_none(address):
    with pytest.raises(FetchError, match="not a") as failed:
        Client(retries=0).read(address)
    assert not failed.value.passing


def test_the_rate_is_kept_to(server):
    client, start = Client(rate=20), time.monotonic()
    for number in range(6):
        client.read(f"{server.url}/files/{number}.jpg")
    assert 0.25 <= time.monotonic() - start < 1
    # Each server has a pace of its own.
    start = time.monotonic()
    client.read(f"{server.url.replace('127.0.0.1', 'localhost')}/files/1.jpg")
    assert time.monotonic() - start < 0.05
