"""Settings that every worker has."""

import pytest
from pydantic import ValidationError

from services.settings import BusSettings


@pytest.mark.parametrize("url", ["ws://bus:8080", "wss://bus"])
def test_a_bus_is_not_reached_by_web_sockets(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATS_URL", url)
    with pytest.raises(ValidationError, match="nats:// or tls://, not by WebSockets"):
        BusSettings()
