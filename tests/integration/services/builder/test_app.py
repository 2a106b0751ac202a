"""Real Bentos, built in forks of a warm template."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

from contracts.artifact_ref import BENTO
from services.builder.bento import JOB, BentoBuilder, use_store
from services.builder.packed import PackedBentos
from services.sandbox.client import Sandbox
from services.sandbox.diagnostics import TimedOut
from services.sandbox.environments import BASE_LOCK, Environments
from services.storage.artifact_store import FsspecArtifactStore
from tests.integration.services.deployer.rollouts import approved, version


async def test_a_bento_is_complete_containerizable_and_the_same_every_time(home: Path) -> None:
    home = home / ".belt"  # the default home is a hidden folder, where BentoML refuses to read some files
    artifacts = FsspecArtifactStore(f"file://{home}/store", home / "cache")
    (home / "cache").mkdir(parents=True)
    environments = Environments(home / "envs", artifacts)
    use_store(home / "builds")
    forks = Sandbox(environments, [JOB])
    bentos = BentoBuilder(forks, artifacts, home / "builds", seconds=60, keep=2)
    images = PackedBentos(artifacts, home / "builds")
    event = await approved(artifacts, environments.base, 1)
    try:
        assert await images.find(event) is None
        async with bentos.build(event, "run1") as bento:
            image = await images.make(event, "run1", bento)
        assert await images.find(event) == image
        assert image.artifact is not None
        assert (image.image, image.artifact.media_type) == (f"bento+{image.artifact.uri}", BENTO)
        async with bentos.build(event, "run1") as again:
            assert (await artifacts.put(again.tar, BENTO)).sha256 == image.artifact.sha256
        for number in (2, 3):
            async with bentos.build(await approved(artifacts, environments.base, number), f"run{number}"):
                pass
    finally:
        await forks.close()
    _is_a_true_bento(await artifacts.fetch_folder(image.artifact))
    kept = sorted(path.name for path in (home / "builds/bentoml/bentos/tiny").iterdir() if path.is_dir())
    assert kept == [version(2), version(3)]
    assert not list((home / "builds").glob(".build-*"))


@pytest.mark.parametrize("docker", [None, "#!/bin/sh\nexit 1\n"], ids=["no command", "no Buildx"])
@pytest.mark.parametrize("way", ["docker", "containerize"])
def test_images_without_their_tools_end_the_start_with_a_sentence(way: str, docker: str | None, home: Path) -> None:
    if docker:
        (home / "docker").write_text(docker)
        (home / "docker").chmod(0o755)
    told = {
        "PATH": str(home), "BENTOBELT_HOME": str(home / "belt"), "NATS_URL": "nats://127.0.0.1:1",
        "BUILDER_IMAGES": way, "BUILDER_REGISTRY": "127.0.0.1:1",
    }  # fmt: skip
    command = [sys.executable, "-m", "services.builder.app"]
    ended = subprocess.run(command, env=os.environ | told, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    [sentence] = ended.stderr.splitlines()
    assert sentence.startswith(f"BUILDER_IMAGES={way} needs the docker command with Buildx on the PATH")


def _is_a_true_bento(folder: Path) -> None:
    about = yaml.safe_load((folder / "bento.yaml").read_text())
    assert (about["name"], about["version"]) == ("tiny", version(1))
    assert about["args"] == {"model_tag": f"tiny:{version(1)}"}
    assert (folder / "env/python/requirements.txt").read_bytes() == BASE_LOCK.read_bytes()
    assert "bentoml==" in about["image"]["python_requirements"]
    assert (folder / "env/docker/Dockerfile").exists()
    assert (folder / f"models/tiny/{version(1)}/project/model.yaml").exists()
    assert {path.name for path in (folder / "src").iterdir()} == {"bentofile.yaml", "contracts", "serving"}


async def test_what_a_killed_build_left_is_built_anew(home: Path) -> None:
    artifacts = FsspecArtifactStore(f"file://{home}/store", home / "cache")
    (home / "cache").mkdir(parents=True)
    environments = Environments(home / "envs", artifacts)
    use_store(home / "builds")
    for kind in ("models", "bentos"):
        half = home / "builds/bentoml" / kind / "tiny" / version(1)
        half.mkdir(parents=True)
        (half / "model.yaml").write_text("name: ti")
    forks = Sandbox(environments, [JOB])
    try:
        event = await approved(artifacts, environments.base, 1)
        async with BentoBuilder(forks, artifacts, home / "builds", seconds=60, keep=2).build(event, "run1") as bento:
            with tarfile.open(bento.tar) as tar:
                assert "bento.yaml" in tar.getnames()
    finally:
        await forks.close()


async def test_a_build_that_takes_too_long_names_the_setting(home: Path) -> None:
    artifacts = FsspecArtifactStore(f"file://{home}/store", home / "cache")
    (home / "cache").mkdir(parents=True)
    environments = Environments(home / "envs", artifacts)
    use_store(home / "builds")
    forks = Sandbox(environments, [JOB])
    try:
        event = await approved(artifacts, environments.base, 1)
        with pytest.raises(TimedOut, match=r"the build did not end within 0\.01 s and was stopped \(BUILDER_SECONDS\)"):
            async with BentoBuilder(forks, artifacts, home / "builds", seconds=0.01, keep=2).build(event, "run1"):
                pass
    finally:
        await forks.close()


def test_the_worker_itself_imports_nothing_heavy() -> None:
    code = "import sys, services.builder.app, services.deployer.app; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"bentoml", "sklearn", "pandas", "numpy", "joblib"} & set(loaded)
