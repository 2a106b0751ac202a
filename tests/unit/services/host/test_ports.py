"""Free ports: different ones, below those of outgoing connections."""

import socket

from services.host import free_ports, is_free, port_holder


def test_free_ports_differ_and_can_be_listened_on() -> None:
    ports = free_ports(3)
    assert len(set(ports)) == 3
    assert all(map(is_free, ports))


def test_a_port_in_use_is_not_free_and_has_a_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not is_free(port)
        assert "pid" in (port_holder(port) or "")
