"""What a container prints, read as it comes."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from services.builder.scratch import printed
from services.docker_errors import StreamError


class Api:
    """An engine's answer to one question: what a container printed."""

    def __init__(self, *chunks: bytes, then: threading.Event | None = None) -> None:
        self._chunks, self._then = chunks, then

    def logs(self, container: str, **asked: Any) -> Any:
        assert asked == {"stdout": True, "stderr": False, "stream": True, "follow": True}
        return self

    def __iter__(self) -> Iterator[bytes]:
        yield from self._chunks
        if self._then is not None:
            assert self._then.wait(20), "it was not closed"

    def close(self) -> None:
        assert self._then is not None
        self._then.set()


def test_lines_come_whole_however_they_are_cut() -> None:
    assert list(printed(Api(b"made fi", b"rst\nmade second\nma", b"de third\n"), "x", 20)) == [
        "made first",
        "made second",
        "made third",
    ]


def test_a_container_that_says_no_more_is_not_listened_to_for_ever() -> None:
    lines = printed(Api(b"made first\n", then=threading.Event()), "x", 0.1)
    assert next(lines) == "made first"
    with pytest.raises(StreamError, match=r"longer than 0\.1 s, three times BUILDER_SECONDS"):
        next(lines)
