"""The way of a request: plain ASGI before BentoML's own app, which gets whatever is not ours.

Most of a small model's request is framework: where a logistic regression took 0.8 ms, an `@bentoml.api` that does
nothing took 2 ms. (A forest's request is mostly the forest; there `batching` is what helps.)
"""

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic_core import to_json

from serving.errors import PredictionFailed, Refused

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

JSON = b"application/json"
PROBE = (b"x-bentobelt-probe", b"1")
"""The header of a request that is no traffic: the deployer asks a new version for predictions it knows."""
DRAINED = 8
"""A body this many times too large is still read (and forgotten), so that the sender gets to see the 413."""
PAGES = "/static_content"
"""What BentoML's own index page is made of."""


@dataclass(frozen=True)
class HttpResponse:
    """What goes back."""

    body: bytes
    status: int = 200
    media: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True)
class HttpRequest:
    """What came in."""

    body: bytes
    probe: bool = False


Endpoint = Callable[[HttpRequest], Awaitable[HttpResponse]]


class RequestObserver(Protocol):
    """Is told of every request that ended here."""

    def __call__(self, endpoint: str, status: int, error: BaseException | None) -> None: ...


@dataclass
class Routes:
    """What this process answers itself.

    Args:
        model: also accepted as the path's first segment, for callers that do not go through the gateway.
        endpoints: path → method → endpoint.
        max_body: bytes.
    """

    model: str
    version: str
    endpoints: Mapping[str, Mapping[str, Endpoint]]
    max_body: int
    watch: RequestObserver
    stamp: tuple[bytes, bytes] = field(init=False)
    prefix: str = field(init=False)

    def __post_init__(self) -> None:
        self.prefix = f"/{self.model}/"
        self.stamp = (b"x-model-version", self.version.encode())


class AsgiFront:
    """ASGI app: ours first, BentoML's after. Opened when the model is loaded."""

    def __init__(self) -> None:
        self._routes: Routes | None = None
        self.behind: App | None = None

    def open(self, routes: Routes) -> None:
        """From now on answer `routes`."""
        self._routes = routes

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        assert self.behind is not None, "BentoML's app is set before the server starts"
        routes = self._routes
        if scope["type"] != "http" or routes is None:
            await self.behind(scope, receive, send)
            return
        path: str = scope["path"]
        if path.startswith(routes.prefix):
            path = path[len(routes.prefix) - 1 :]
        methods = routes.endpoints.get(path)
        if methods is None and (path in ("", "/", routes.prefix[:-1]) or path.startswith(PAGES)):
            # Never BentoML's index page: its files are not here, and it tells others who looks.
            await _send(_instead(routes, path, scope), routes.stamp, send)
            return
        if methods is None:
            await self.behind({**scope, "path": path, "raw_path": path.encode()}, receive, _stamped(send, routes.stamp))
            return
        await _serve(routes, path[1:], methods, scope, receive, send)


def _instead(routes: Routes, path: str, scope: Message) -> HttpResponse:
    """What there is in place of BentoML's pages: our /docs, under the prefix that the gateway took away."""
    if path.startswith(PAGES):
        return HttpResponse(_error("there is no such page"), 404)
    prefix = routes.prefix[:-1]
    # Only the model's own name is believed: the header is also in reach of callers that do not use the gateway.
    under = scope["path"].startswith(prefix) or (b"x-forwarded-prefix", prefix.encode()) in scope["headers"]
    return HttpResponse(
        b"", 307, b"text/plain", headers=((b"location", f"{prefix}/docs".encode() if under else b"docs"),)
    )


async def _serve(
    routes: Routes, name: str, methods: Mapping[str, Endpoint], scope: Message, receive: Receive, send: Send
) -> None:
    # Whatever happens there is an answer; a bug of ours still reaches the server's log as an exception.
    answer = HttpResponse(_error("this service failed; its log says why"), 500)
    wrong: BaseException | None = None
    try:
        body = await _body(receive, routes.max_body)
        endpoint = methods.get(scope["method"])
        if endpoint is None:
            raise Refused(405, f"/{name} takes {' or '.join(methods)}")
        answer = await endpoint(HttpRequest(body, PROBE in scope["headers"]))
    except Refused as error:
        wrong = error
        answer = HttpResponse(_error(str(error), error.details), error.status, headers=_more(error.status, methods))
    except PredictionFailed as error:
        wrong = error
        answer = HttpResponse(_error(str(error)), 500)
    finally:
        routes.watch(name, answer.status, wrong)
        await _send(answer, routes.stamp, send)


async def _body(receive: Receive, limit: int) -> bytes:
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body") and len(body) <= limit:
        return body
    parts, size = [body], len(body)
    while message.get("more_body") and size <= limit * DRAINED:
        message = await receive()
        size += len(message.get("body", b""))
        if size <= limit:
            parts.append(message["body"])
    if size > limit:
        raise Refused(413, f"the body is larger than the {limit} bytes this service takes")
    return b"".join(parts)


async def _send(answer: HttpResponse, stamp: tuple[bytes, bytes], send: Send) -> None:
    head = [(b"content-type", answer.media), (b"content-length", b"%d" % len(answer.body)), stamp, *answer.headers]
    await send({"type": "http.response.start", "status": answer.status, "headers": head})
    await send({"type": "http.response.body", "body": answer.body})


def _stamped(send: Send, stamp: tuple[bytes, bytes]) -> Send:
    async def stamped(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), stamp]}
        await send(message)

    return stamped


def _error(message: str, details: list[dict[str, Any]] | None = None) -> bytes:
    return to_json({"error": message, "details": details} if details else {"error": message})


def _more(status: int, methods: Mapping[str, Endpoint]) -> tuple[tuple[bytes, bytes], ...]:
    if status == 405:
        return ((b"allow", ", ".join(methods).encode()),)
    return ((b"retry-after", b"1"),) if status == 503 else ()
