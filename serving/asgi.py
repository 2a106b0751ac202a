"""ASGI app of a served model: it answers the model's endpoints and passes other requests on to BentoML's own app.

Most of a small model's request is framework: a logistic regression took 0.8 ms here, and an `@bentoml.api` that does
nothing took 2 ms. (A forest's request is mostly the forest; `batching` helps there.)
"""

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json

from serving.errors import PredictionFailed, Refused

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

JSON = b"application/json"
PROBE = (b"x-bentobelt-probe", b"1")
"""Header of a request that is no traffic: the deployer checks a new version with inputs whose predictions it knows."""
DRAIN_FACTOR = 8
"""A body up to this many times too large is still read and thrown away, so that the sender receives the 413."""
BENTOML_PAGES = "/static_content"
"""Path of the files of BentoML's own index page."""


@dataclass(frozen=True)
class HttpResponse:
    """A response; `headers` are added to the content type, the length and the version."""

    body: bytes
    status: int = 200
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True)
class HttpRequest:
    """A request; `is_probe` when it has the PROBE header."""

    body: bytes
    is_probe: bool = False


Endpoint = Callable[[HttpRequest], Awaitable[HttpResponse]]


@dataclass
class Routes:
    """Endpoints of one version.

    Args:
        model: also accepted as the path's first segment, for callers that do not use the gateway.
        endpoints: path → method → endpoint.
        max_body: bytes.
        observe: called after every request with the endpoint, the status and the error.
    """

    model: str
    version: str
    endpoints: Mapping[str, Mapping[str, Endpoint]]
    max_body: int
    observe: Callable[[str, int, BaseException | None], None]

    def __post_init__(self) -> None:
        self.prefix = f"/{self.model}/"
        self.version_header = (b"x-model-version", self.version.encode())


class ModelApp:
    """The ASGI app. Until `routes` is set, when the model is loaded, BentoML's app answers everything."""

    def __init__(self) -> None:
        self.routes: Routes | None = None
        self.bentoml_app: App | None = None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        assert self.bentoml_app is not None, "BentoML's app is set before the server starts"
        routes = self.routes
        if scope["type"] != "http" or routes is None:
            await self.bentoml_app(scope, receive, send)
            return
        path: str = scope["path"]
        if path.startswith(routes.prefix):
            path = path[len(routes.prefix) - 1 :]
        methods = routes.endpoints.get(path)
        if methods is None and (path in ("", "/", routes.prefix[:-1]) or path.startswith(BENTOML_PAGES)):
            # BentoML's index page is never shown: its files are not in the image, and it loads others from elsewhere.
            await _send(_redirect_to_docs(routes, path, scope), routes.version_header, send)
            return
        if methods is None:
            scope = {**scope, "path": path, "raw_path": path.encode()}
            await self.bentoml_app(scope, receive, _with_header(send, routes.version_header))
            return
        await _respond(routes, path[1:], methods, scope, receive, send)


def _redirect_to_docs(routes: Routes, path: str, scope: Message) -> HttpResponse:
    """Return a redirect to /docs in place of BentoML's index page. It contains the prefix that the gateway removed."""
    if path.startswith(BENTOML_PAGES):
        return HttpResponse(_error("page not found"), 404)
    prefix = routes.prefix[:-1]
    # Only the model's own name is accepted, because callers that do not use the gateway can set the header too.
    below = scope["path"].startswith(prefix) or (b"x-forwarded-prefix", prefix.encode()) in scope["headers"]
    location = f"{prefix}/docs".encode() if below else b"docs"
    return HttpResponse(b"", 307, b"text/plain", headers=((b"location", location),))


async def _respond(
    routes: Routes, name: str, methods: Mapping[str, Endpoint], scope: Message, receive: Receive, send: Send
) -> None:
    # This is sent when an endpoint raises an unexpected exception, which also reaches the server's log.
    response = HttpResponse(_error("internal error; the log of this server has the traceback"), 500)
    failure: BaseException | None = None
    try:
        body = await _body(receive, routes.max_body)
        endpoint = methods.get(scope["method"])
        if endpoint is None:
            raise Refused(405, f"/{name} takes {' or '.join(methods)}")
        response = await endpoint(HttpRequest(body, PROBE in scope["headers"]))
    except Refused as error:
        failure = error
        response = HttpResponse(
            _error(str(error), error.details), error.status, headers=_error_headers(error.status, methods)
        )
    except PredictionFailed as error:
        failure = error
        response = HttpResponse(_error(str(error)), 500)
    finally:
        routes.observe(name, response.status, failure)
        await _send(response, routes.version_header, send)


async def _body(receive: Receive, limit: int) -> bytes:
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body") and len(body) <= limit:
        return body
    parts, size = [body], len(body)
    while message.get("more_body") and size <= limit * DRAIN_FACTOR:
        message = await receive()
        size += len(message.get("body", b""))
        if size <= limit:
            parts.append(message["body"])
    if size > limit:
        raise Refused(413, f"the body is larger than {limit} bytes")
    return b"".join(parts)


async def _send(response: HttpResponse, version_header: tuple[bytes, bytes], send: Send) -> None:
    length = b"%d" % len(response.body)
    headers = [(b"content-type", response.content_type), (b"content-length", length), version_header]
    await send({"type": "http.response.start", "status": response.status, "headers": [*headers, *response.headers]})
    await send({"type": "http.response.body", "body": response.body})


def _with_header(send: Send, header: tuple[bytes, bytes]) -> Send:
    async def send_with_header(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), header]}
        await send(message)

    return send_with_header


def _error(message: str, details: list[dict[str, Any]] | None = None) -> bytes:
    return to_json({"error": message, "details": details} if details else {"error": message})


def _error_headers(status: int, methods: Mapping[str, Endpoint]) -> tuple[tuple[bytes, bytes], ...]:
    if status == 405:
        return ((b"allow", ", ".join(methods).encode()),)
    return ((b"retry-after", b"1"),) if status == 503 else ()
