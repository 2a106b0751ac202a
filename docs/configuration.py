"""Writes configuration.md from the settings themselves: `python docs/configuration.py` (a test keeps it current)."""

import importlib
import sys
from pathlib import Path

from pydantic import AliasChoices
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from contracts.subjects import WORKERS  # noqa: E402


def settings_of(module: str) -> type[BaseSettings]:
    """Return the settings class of a module: the last one it defines."""
    found = [
        value
        for value in vars(importlib.import_module(module)).values()
        if isinstance(value, type) and issubclass(value, BaseSettings) and value.__module__ == module
    ]
    return found[-1]


def variable(name: str, field: FieldInfo, prefix: str) -> str:
    """Return the environment variable of a field."""
    alias = field.validation_alias
    if isinstance(alias, AliasChoices):
        return str(alias.choices[0])
    return alias if isinstance(alias, str) else f"{prefix}{name}".upper()


def rows(settings: type[BaseSettings], leave_out: set[str]) -> list[str]:
    """Return one table row per field that is not in `leave_out`."""
    prefix = settings.model_config.get("env_prefix", "")
    lines = []
    for name, field in settings.model_fields.items():
        if name not in leave_out:
            default = "" if field.default is None else f"`{field.default}`"
            lines.append(f"| `{variable(name, field, prefix)}` | {default} | {field.description} |")
    return lines


def table(title: str, lines: list[str]) -> str:
    """Return a section with its table."""
    return "\n".join([f"## {title}", "", "| variable | default | what it is |", "|---|---|---|", *lines, ""])


def page() -> str:
    """Return the whole page."""
    shared = settings_of("services.messaging.settings")
    parts = [
        "# Configuration\n",
        "Every setting is an environment variable, read once at start. Each has a working default.",
        "`python docs/configuration.py` writes this page from the code. The settings of one model (gate, monitor,",
        "split, requirements) are in its `model.yaml`; see the README. `belt up` sets the addresses and folders of",
        "all workers.\n",
        table("Every worker", rows(shared, set())),
    ]
    for worker in WORKERS:
        own = rows(settings_of(f"services.{worker}.settings"), set(shared.model_fields))
        if own:
            parts.append(table(worker.capitalize(), own))
    parts.append(table("Serving", rows(settings_of("serving.settings"), set())))
    parts.append(
        table(
            "belt",
            [
                "| `NATS_URL` | from `nats.url` in the home | the bus that the commands use |",
                "| `BELT_GATEWAY` | from `gateway.url` in the home | the gateway that `predict` and `feedback` use |",
                "| `BENTOBELT_HOME` | `.belt` | the home, when `--home` is not given |",
            ],
        )
    )
    return "\n".join(parts)


if __name__ == "__main__":
    (HERE / "configuration.md").write_text(page())
