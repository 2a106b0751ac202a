"""Settings that every worker has."""

import pytest
from pydantic import ValidationError

from services.builder.settings import Settings as Builder
from services.messaging.settings import BusSettings, from_environment


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("BUILDER_IMAGES", "dokcer", "BUILDER_IMAGES: Input should be 'packed', 'docker' or 'containerize'"),
        ("BUILDER_IMAGES", "docker", "BUILDER_IMAGES=docker needs BUILDER_REGISTRY, such as 127.0.0.1:5000"),
        (
            "BUILDER_REGISTRY",
            "http://secret@x",
            "BUILDER_REGISTRY: a registry is a host, with or without port and path,",
        ),
        ("HTTP_PORT", "70000", "HTTP_PORT: Input should be less than or equal to 65535"),
    ],
)
def test_what_cannot_be_used_is_named_by_its_variable(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        from_environment(Builder)
    assert str(ended.value).startswith(said)
    assert "secret" not in str(ended.value)


@pytest.mark.parametrize("url", ["ws://bus:8080", "wss://bus"])
def test_a_bus_is_not_reached_by_web_sockets(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATS_URL", url)
    with pytest.raises(ValidationError, match="nats:// or tls://, not by WebSockets"):
        BusSettings()
