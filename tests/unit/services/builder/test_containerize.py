"""Images by `bentoml containerize`: keys that it would ignore, and what its command starts."""

import pytest

from contracts.serve_spec import Serve
from services.builder.containerize import UnsupportedServe, refuse_ignored


@pytest.mark.parametrize(
    ("serve", "key"),
    [
        (Serve(dockerfile="Dockerfile"), "serve.dockerfile"),
        (Serve(base_image="python:3.11-slim", system_packages=("hello",)), "serve.system_packages"),
    ],
)
def test_a_key_that_bentoml_would_ignore_is_refused(serve: Serve, key: str) -> None:
    with pytest.raises(UnsupportedServe, match=f"ignores {key}") as raised:
        refuse_ignored(serve)
    assert raised.value.permanent


@pytest.mark.parametrize("serve", [Serve(), Serve(base_image="python:3.11-slim"), Serve(system_packages=("hello",))])
def test_keys_that_bentoml_follows_pass(serve: Serve) -> None:
    refuse_ignored(serve)
