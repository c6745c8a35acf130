"""Server-sent events in the shapes in which servers send them."""

from __future__ import annotations

from windlass.gateway.dialects.events import EventLines, ServerSent


def events(body: bytes) -> list[ServerSent]:
    lines = EventLines()
    return [*lines.feed(body), *lines.end()]


def test_names_data_and_line_breaks() -> None:
    body = b'event: a\ndata: {"x":1}\n\ndata:{"y":2}\r\n\r\n: comment\n\nid: 7\nretry: 5\ndata: 1\ndata: 2\n\n'
    assert events(body) == [ServerSent("a", b'{"x":1}'), ServerSent("", b'{"y":2}'), ServerSent("", b"1\n2")]


def test_a_name_does_not_outlive_its_event() -> None:
    assert events(b"event: a\n\ndata: 1\n\n") == [ServerSent("", b"1")]


def test_an_event_without_data_says_nothing() -> None:
    assert events(b"data:\n\ndata: \n\nevent: ping\n\n") == []


def test_the_last_event_may_lack_its_line_break() -> None:
    assert events(b"data: 1\n\ndata: 2") == [ServerSent("", b"1"), ServerSent("", b"2")]


def test_bytes_that_are_no_utf8_do_not_stop_it() -> None:
    assert events(b"event: \xff\ndata: \xff\n\n") == [ServerSent("\ufffd", b"\xff")]


def test_a_chunk_may_end_anywhere() -> None:
    body = 'event: é\r\ndata: {"x": "日本"}\r\n\r\ndata: 2\n\n'.encode()
    for at in range(len(body)):
        lines = EventLines()
        assert [*lines.feed(body[:at]), *lines.feed(body[at:]), *lines.end()] == events(body)
