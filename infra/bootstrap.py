"""Writes the passwords, the NATS users and the gateway's configuration at the first `docker compose up`.

None of these files is in the repository or in an image. Each service has a volume of its own with only its own file.
Later runs keep existing passwords and add users for new targets.
"""

import json
import os
import re
import secrets
import string
import sys
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.host import write_atomically
from services.messaging import permissions

NOBODY = 1034
"""The user that our images run as."""
GRAFANA, GRAFANA_USER = "grafana", 472


class Settings(BaseSettings):
    """Settings of the first run. Besides them, PASSWORD_<USER> sets a password."""

    model_config = SettingsConfigDict(env_prefix="FIRST_RUN_")

    secrets: Path = Field(default=Path("/secrets"), description="a folder with a volume per service")
    infra: Path = Field(default=Path("/infra"), description="the checkout's infra folder; its owner gets the files")
    gateway: Path = Field(default=Path("/gateway"), description="where Traefik finds its configuration")
    home: Path = Field(default=Path("/belt"), description="the home folder of the `belt` command")
    target: str = Field(default="local", description="the target of the deployer beside the bus")
    targets: str = Field(default="local", description="targets with a deployer, separated by spaces")
    nats_address: str = Field(default="127.0.0.1:4222", description="address of the bus on the host")
    gateway_address: str = Field(default="127.0.0.1:8080", description="address of the gateway on the host")


def main(part: str = "all") -> None:
    """Write all files; with `gateway` only the gateway's, for a machine that only has a deployer."""
    settings = Settings()
    write(settings.gateway / "traefik.yml", traefik_config(settings.infra / "traefik" / "traefik.yml"))
    if part != "gateway":
        make_secrets(settings, targets_of(settings))


def targets_of(settings: Settings) -> tuple[str, ...]:
    """Return the targets; the first one is on this machine, beside the bus.

    Raises:
        SystemExit: the target of this machine is not one of them.
    """
    targets = settings.targets.split()
    if settings.target not in targets:
        raise SystemExit(f"TARGET={settings.target} is not in TARGETS={settings.targets!r}: correct both in .env")
    return (settings.target, *(target for target in targets if target != settings.target))


def make_secrets(settings: Settings, targets: tuple[str, ...]) -> None:
    """Choose passwords and write the files of the bus, the services and the `belt` command."""
    passwords = choose_passwords(settings.secrets / "nats" / "passwords.json", (*permissions.users(targets), GRAFANA))
    write(settings.secrets / "nats" / "users.conf", nats_users(passwords, targets))
    for user in permissions.users(targets):
        if user not in (permissions.PEOPLE, permissions.SERVING) and not _is_on_another_machine(user, targets):
            folder = settings.secrets / user.partition("-")[0]
            write(folder / "nats_url", _url(user, passwords, "nats:4222"), NOBODY)
            if user.startswith(permissions.DEPLOYER):
                write(folder / "deployer_serving_nats_url", _url(permissions.SERVING, passwords, "nats:4222"), NOBODY)
    write(settings.secrets / GRAFANA / "password", passwords[GRAFANA], GRAFANA_USER)
    write_client_files(settings, passwords, targets)


def choose_passwords(file: Path, names: tuple[str, ...]) -> dict[str, str]:
    """Return a password for each name: PASSWORD_<NAME>, else the one of an earlier run, else a new one."""
    known: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    chosen = {name: _requested_password(name) or known.get(name) or secrets.token_hex(16) for name in names}
    write(file, json.dumps(known | chosen, indent=2))
    return chosen


def _requested_password(name: str) -> str:
    variable = f"PASSWORD_{name.upper().replace('-', '_')}"
    password = os.environ.get(variable, "")
    if not re.fullmatch(r"[A-Za-z0-9._~-]*", password):
        raise SystemExit(f"{variable} may only have letters, digits and . _ ~ - because it becomes part of a URL")
    return password


def nats_users(passwords: Mapping[str, str], targets: tuple[str, ...]) -> str:
    """Return the users and permissions in NATS's configuration format, of which JSON is a subset."""
    found = [
        {"user": user, "password": passwords[user], "permissions": permissions.of(user).model_dump()}
        for user in permissions.users(targets)
    ]
    return f"authorization: {json.dumps({'users': found}, indent=1)}\n"


def traefik_config(template: Path) -> str:
    """Return Traefik's static configuration, with its addresses in a container."""
    return string.Template(template.read_text()).substitute(ENTRY=":8080", PING=":8082", ROUTES="/routes")


def write_client_files(settings: Settings, passwords: Mapping[str, str], targets: tuple[str, ...]) -> None:
    """Write the addresses of bus and gateway for the `belt` command, and an .env file for each further target."""
    owner = settings.infra.stat().st_uid  # the owner of the checkout runs `belt` there
    settings.home.mkdir(parents=True, exist_ok=True)
    if settings.home.stat().st_uid != owner:
        os.chown(settings.home, owner, -1)
    write(settings.home / "nats.url", _url(permissions.PEOPLE, passwords, _reachable(settings.nats_address)), owner)
    write(settings.home / "gateway.url", f"http://{_reachable(settings.gateway_address)}\n", owner)
    for target in targets[1:]:
        deployer = _url(f"{permissions.DEPLOYER}-{target}", passwords, "BUS_ADDRESS:4222")
        serving = _url(permissions.SERVING, passwords, "BUS_ADDRESS:4222")
        lines = f"TARGET={target}\nNATS_URL={deployer}\nDEPLOYER_SERVING_NATS_URL={serving}\n"
        write(settings.home / f"{target}.env", lines, owner)


def write(file: Path, text: str, owner: int = 0) -> None:
    """Write a file that only its owner can read, atomically: a reader sees the old content or the new one."""
    write_atomically(file, text, mode=0o600, owner=owner if os.geteuid() == 0 else None)


def _is_on_another_machine(user: str, targets: tuple[str, ...]) -> bool:
    """Return whether the user is the deployer of another machine; only the first target is on this one."""
    return user.startswith(f"{permissions.DEPLOYER}-") and user != f"{permissions.DEPLOYER}-{targets[0]}"


def _reachable(address: str) -> str:
    """Return the address for clients on this machine of a server that may listen on all addresses."""
    return address.replace("0.0.0.0", "127.0.0.1")  # noqa: S104  # nothing listens on it here


def _url(user: str, passwords: Mapping[str, str], address: str) -> str:
    return f"nats://{user}:{passwords[user]}@{address}"


if __name__ == "__main__":
    main(*sys.argv[1:])
