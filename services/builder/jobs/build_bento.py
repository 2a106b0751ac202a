"""Job of a child process that builds a Bento from a model and the serving code.

One process runs one build, as BentoML needs it.
"""

import re
import shutil
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# bentoml.build imports most of these only when it needs them. The fork server imports them once for all builds.
import _bentoml_sdk.service.openapi  # noqa: F401
import bentoml
import bentoml._internal.service
import bentoml.bentos
import bentoml.models
import fsspec.implementations.local  # noqa: F401
import pip_requirements_parser  # type: ignore[import-untyped]  # noqa: F401
from _bentoml_impl import docker as _docker  # noqa: F401
from bentoml._internal.bento.build_config import BentoEnvSchema  # the type that bentoml.build asks for

import serving.asgi
from contracts.packaged_model import Manifest
from services.builder.domain import pins
from services.host import locked
from services.storage import model_store

ROOT = Path(serving.__file__).resolve().parents[1]
CREATED = re.compile(rb"^(\s*(?:- )?creation_time:).*$", re.MULTILINE)


def build(argument: dict[str, Any], _progress: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Build the Bento `tag` and pack it as `scratch/bento.tar`.

    Args:
        argument: store (BENTOML_HOME), scratch (folder), tag, model_file, project (folder), manifest, labels, lock
            (hash-locked requirements), created (ISO time), keep (Bentos), environ (variables by name), docker
            (BentoML's options for an image).

    Returns: folder and bento (path of the tar), and seconds per step.
    """
    scratch, seconds = Path(argument["scratch"]), _Clock()
    with locked(Path(argument["store"]) / ".lock"):  # BentoML's store breaks with several writers
        _forget(Path(argument["store"]), argument["tag"])
        _save_model(argument)
        seconds.note("model")
        bento = _build(argument, copy_sources(scratch / "context"))
        seconds.note("bento")
        exported = Path(bento.export(str(scratch / "exported"), "folder"))
        _prune(Path(argument["store"]), argument["tag"].split(":")[0], int(argument["keep"]))
    shutil.copyfile(argument["lock"], exported / "env" / "python" / "requirements.txt")
    _pack(exported, scratch / "bento.tar", argument["created"])
    seconds.note("pack")
    return {"folder": str(exported), "bento": str(scratch / "bento.tar"), "seconds": seconds.spent}


def _save_model(argument: dict[str, Any]) -> None:
    model_store.save(
        Path(argument["store"]),
        argument["tag"],
        Path(argument["model_file"]),
        Path(argument["project"]),
        Manifest.model_validate(argument["manifest"]),
        argument["labels"],
        {},
    )


def copy_sources(folder: Path) -> Path:
    """Copy into `folder` what goes into the Bento's `src`: serving and the contracts it uses. Returns `folder`."""
    shutil.copytree(ROOT / "serving", folder / "serving", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "contracts").mkdir()
    for module in ("__init__", *serving.CONTRACTS):
        shutil.copyfile(ROOT / "contracts" / f"{module}.py", folder / "contracts" / f"{module}.py")
    return folder


def _build(argument: dict[str, Any], context: Path) -> Any:
    name, version = argument["tag"].split(":")
    return bentoml.build(
        serving.SERVICE,
        name=name,
        version=version,
        labels=argument["labels"],
        description=f"# {argument['tag']}\n\nBuilt by Bentobelt.\n",
        include=["*.py"],
        build_ctx=str(context),
        # Locked already: resolving again would need the index and could end elsewhere. Pins here, and the hashes in the
        # file that an image is installed from, because BentoML parses and dumps this text several times.
        python={"lock_packages": False, "packages": pins(Path(argument["lock"]).read_text())},
        docker=argument["docker"],
        envs=[BentoEnvSchema(name=name, value=value) for name, value in argument["environ"].items()],
        args={"model_tag": argument["tag"]},
    )


def _pack(folder: Path, to: Path, created: str) -> None:
    """Pack the folder so that the same model and code give the same bytes: sorted, without times and owners."""
    for file in (folder / "bento.yaml", *folder.glob("models/*/*/model.yaml")):
        file.write_bytes(CREATED.sub(rb"\1 '" + created.encode() + rb"'", file.read_bytes()))
    with tarfile.open(to, "w") as tar:
        for path in sorted(folder.rglob("*")):
            # An image is made from the folder, and another user than this one reads it there.
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
            tar.add(path, str(path.relative_to(folder)), recursive=False, filter=_anonymous)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mtime = member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _forget(store: Path, tag: str) -> None:
    # A killed build may have left an incomplete folder, so an existing one is not reused.
    for kind in ("models", "bentos"):
        shutil.rmtree(store / kind / tag.replace(":", "/"), ignore_errors=True)


def _prune(store: Path, name: str, keep: int) -> None:
    for kind in ("models", "bentos"):
        versions = [folder for folder in (store / kind / name).iterdir() if folder.is_dir()]
        for folder in sorted(versions, key=lambda folder: folder.stat().st_mtime)[:-keep]:
            shutil.rmtree(folder, ignore_errors=True)


class _Clock:
    def __init__(self) -> None:
        self._last = time.perf_counter()
        self.spent: dict[str, float] = {}

    def note(self, step: str) -> None:
        now = time.perf_counter()
        self.spent[step], self._last = round(now - self._last, 3), now
