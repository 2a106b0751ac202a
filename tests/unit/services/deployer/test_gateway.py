"""Traefik's folder of routes."""

from pathlib import Path

from services.deployer.gateway import Traefik


def test_two_deployers_never_undo_each_others_routes(tmp_path: Path) -> None:
    one, other = (Traefik("http://gateway", tmp_path / "routes", 1.0) for _ in range(2))
    one.route("digits", "http://127.0.0.1:1")
    other.route("taxi", "http://127.0.0.1:2")
    one.route("digits", "http://127.0.0.1:3")
    other.route("taxi", None)
    for gateway in (one, other, Traefik("http://gateway", tmp_path / "routes", 1.0)):
        assert gateway.address("digits") == "http://127.0.0.1:3"
        assert gateway.address("taxi") is None
    assert sorted(file.name for file in (tmp_path / "routes").glob("*.yml")) == ["digits.yml", "taxi.yml"]


def test_a_broken_or_missing_file_is_no_route(tmp_path: Path) -> None:
    gateway = Traefik("http://gateway", tmp_path, 1.0)
    assert not gateway.has_routes()
    assert gateway.address("digits") is None
    (tmp_path / "digits.yml").write_text("{")
    assert gateway.address("digits") is None
    assert gateway.has_routes()


def test_people_may_reach_the_gateway_elsewhere(tmp_path: Path) -> None:
    assert Traefik("http://traefik:8080/", tmp_path, 1.0).url("digits") == "http://traefik:8080/digits"
    public = Traefik("http://traefik:8080", tmp_path, 1.0, "https://models.example.org/")
    assert public.url("digits") == "https://models.example.org/digits"
