"""What a first `docker compose up` makes: passwords, a NATS user per service, the gateway's configuration.

Nothing of it is in the repo or in an image. Each service finds only its own file, in a volume that nobody else mounts.
Later runs keep what is there, and add users for targets that are new.
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
    """Read once; PASSWORD_<USER> besides, for passwords that somebody else has chosen."""

    model_config = SettingsConfigDict(env_prefix="FIRST_RUN_")

    secrets: Path = Field(default=Path("/secrets"), description="a volume per service")
    infra: Path = Field(default=Path("/infra"), description="the checkout's infra folder; its owner gets the files")
    gateway: Path = Field(default=Path("/gateway"), description="where Traefik finds its configuration")
    home: Path = Field(default=Path("/belt"), description="the folder that `belt` looks at")
    target: str = Field(default="local", description="the target of the deployer beside the bus")
    targets: str = Field(default="local", description="targets with a deployer, separated by spaces")
    nats_address: str = Field(default="127.0.0.1:4222", description="of the bus, as the host sees it")
    gateway_address: str = Field(default="127.0.0.1:8080", description="of the gateway, as the host sees it")


def main(part: str = "all") -> None:
    """Make everything; or one part: `gateway`, on a machine that has a deployer only."""
    settings = Settings()
    write(settings.gateway / "traefik.yml", gateway(settings.infra / "traefik" / "traefik.yml"))
    if part != "gateway":
        make_secrets(settings, targets_of(settings))


def targets_of(settings: Settings) -> tuple[str, ...]:
    """The targets, the one beside the bus first.

    Raises:
        SystemExit: that one is not among them.
    """
    targets = settings.targets.split()
    if settings.target not in targets:
        raise SystemExit(f"TARGET={settings.target} is not in TARGETS={settings.targets!r}: put both right in .env")
    return (settings.target, *(target for target in targets if target != settings.target))


def make_secrets(settings: Settings, targets: tuple[str, ...]) -> None:
    """Choose passwords and give each service, the bus and `belt` what it needs of them."""
    passwords = choose(settings.secrets / "nats" / "passwords.json", (*permissions.users(targets), GRAFANA))
    write(settings.secrets / "nats" / "users.conf", users(passwords, targets))
    for user in permissions.users(targets):
        if user not in (permissions.PEOPLE, permissions.SERVING) and not _is_elsewhere(user, targets):
            folder = settings.secrets / user.partition("-")[0]
            write(folder / "nats_url", _url(user, passwords, "nats:4222"), NOBODY)
            if user.startswith(permissions.DEPLOYER):
                write(folder / "deployer_serving_nats_url", _url(permissions.SERVING, passwords, "nats:4222"), NOBODY)
    write(settings.secrets / GRAFANA / "password", passwords[GRAFANA], GRAFANA_USER)
    tell_belt(settings, passwords, targets)


def choose(file: Path, names: tuple[str, ...]) -> dict[str, str]:
    """A password for each name: what PASSWORD_<NAME> says, else what was chosen before, else a new one."""
    known: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    chosen = {name: _wished(name) or known.get(name) or secrets.token_hex(16) for name in names}
    write(file, json.dumps(known | chosen, indent=2))
    return chosen


def _wished(name: str) -> str:
    variable = f"PASSWORD_{name.upper().replace('-', '_')}"
    password = os.environ.get(variable, "")
    if not re.fullmatch(r"[A-Za-z0-9._~-]*", password):
        raise SystemExit(f"{variable} may hold letters, digits and . _ ~ - only: it becomes part of a URL")
    return password


def users(passwords: Mapping[str, str], targets: tuple[str, ...]) -> str:
    """NATS's configuration of who may do what: JSON is what its configuration takes."""
    found = [
        {"user": user, "password": passwords[user], "permissions": permissions.of(user).model_dump()}
        for user in permissions.users(targets)
    ]
    return f"authorization: {json.dumps({'users': found}, indent=1)}\n"


def gateway(template: Path) -> str:
    """Traefik's static configuration, with the addresses that it has in a container."""
    return string.Template(template.read_text()).substitute(ENTRY=":8080", PING=":8082", ROUTES="/routes")


def tell_belt(settings: Settings, passwords: Mapping[str, str], targets: tuple[str, ...]) -> None:
    """Write where `belt` finds bus and gateway, and what the machine of each further target needs to know."""
    owner = settings.infra.stat().st_uid  # whoever has checked out the repo runs `belt` there
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
    """Write a file that only its owner may read; readers see the old content or the new content."""
    write_atomically(file, text, mode=0o600, owner=owner if os.geteuid() == 0 else None)


def _is_elsewhere(user: str, targets: tuple[str, ...]) -> bool:
    """Whether it is the deployer of another machine: only the first target is here."""
    return user.startswith(f"{permissions.DEPLOYER}-") and user != f"{permissions.DEPLOYER}-{targets[0]}"


def _reachable(address: str) -> str:
    """What listens on every address is reached at this machine's own."""
    return address.replace("0.0.0.0", "127.0.0.1")  # noqa: S104  # it is not bound here


def _url(user: str, passwords: Mapping[str, str], address: str) -> str:
    return f"nats://{user}:{passwords[user]}@{address}"


if __name__ == "__main__":
    main(*sys.argv[1:])
