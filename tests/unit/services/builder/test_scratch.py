"""What a container prints, read as it comes."""

import threading
from collections import deque
from collections.abc import Iterator

import pytest

from services.builder.scratch import printed
from services.docker_engine.errors import StreamError

Piece = tuple[bytes | None, bytes | None]


class Attached:
    """What a container prints, on two outputs."""

    def __init__(self, *pieces: Piece, then: threading.Event | None = None) -> None:
        self._pieces, self._then = pieces, then

    def __iter__(self) -> Iterator[Piece]:
        yield from self._pieces
        if self._then is not None:
            assert self._then.wait(20), "it was not closed"

    def close(self) -> None:
        assert self._then is not None
        self._then.set()


def test_lines_come_whole_however_they_are_cut() -> None:
    said: deque[str] = deque()
    lines = printed(Attached((b"made fi", None), (None, b"no"), (b"rst\nmade second\nma", None)), 20, said)
    assert list(lines) == ["made first", "made second"]
    assert list(said) == ["made first", "made second", "ma", "no"]


def test_the_end_of_both_outputs_is_kept_without_colours() -> None:
    said: deque[str] = deque(maxlen=3)
    pieces = [(b"one\n", None), (None, b"two\n\x1b[31mno space left\x1b[39m\n"), (b"four", None)]
    assert list(printed(Attached(*pieces), 20, said)) == ["one"]
    assert list(said) == ["two", "no space left", "four"]


def test_a_container_that_says_no_more_is_not_listened_to_for_ever() -> None:
    lines = printed(Attached((b"made first\n", None), then=threading.Event()), 0.1, deque())
    assert next(lines) == "made first"
    with pytest.raises(StreamError, match=r"made first\nit took longer than 0\.1 s, 3 times BUILDER_SECONDS"):
        next(lines)
