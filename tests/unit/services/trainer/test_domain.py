"""Choice of the project and the dataset of a training."""

from pathlib import Path

import pytest

from contracts.artifact_ref import TAR_GZ, ArtifactRef
from contracts.events import DataPushed
from contracts.model_spec import BadSpec, ModelSpec
from services.storage.registry import Project
from services.trainer.domain import dataset_of, newest, read_spec, replaces, schema_for


def archive(digit: str) -> ArtifactRef:
    return ArtifactRef(uri=f"nats://artifacts/{digit}", sha256=digit * 64, size=1, media_type=TAR_GZ)


KNOWN = Project(
    model="m", archive=archive("a"), order=5, commit="c5", data_schema={"kept": True}, learned_with="a" * 64
)


def test_data_alone_is_trained_with_the_newest_project() -> None:
    assert newest(DataPushed(model="m"), 9, KNOWN) == KNOWN
    assert newest(DataPushed(model="m"), 9, None) is None


def test_an_unchanged_project_keeps_its_schema_and_a_changed_one_learns_anew() -> None:
    same = newest(DataPushed(model="m", project=archive("a"), commit="c9"), 9, KNOWN)
    changed = newest(DataPushed(model="m", project=archive("b")), 9, KNOWN)
    assert same == KNOWN.model_copy(update={"order": 9, "commit": "c9"})
    assert changed is not None
    assert (schema_for(same, "a" * 64), schema_for(changed, "b" * 64)) == ({"kept": True}, None)
    back = newest(DataPushed(model="m", project=archive("a")), 10, changed)
    assert back is not None
    assert schema_for(back, "a" * 64) == {"kept": True}


def test_an_older_push_never_replaces_a_newer_one() -> None:
    assert not replaces(KNOWN.model_copy(update={"order": 4}), KNOWN)
    assert replaces(KNOWN, None)


def test_the_project_of_another_model() -> None:
    with pytest.raises(BadSpec, match=r"model\.yaml says name: digits, but the event is about model 'numbers'"):
        read_spec("name: digits\ntarget: y\n", "numbers")


@pytest.mark.parametrize(
    ("given", "written", "found"),
    [
        ("/of/the/worker.csv", "data/x.csv", "/of/the/worker.csv"),
        (None, "data/x.csv", "{project}/data/x.csv"),
        (None, "/of/the/worker.csv", "/of/the/worker.csv"),
        (None, "s3://bucket/x.csv", "s3://bucket/x.csv"),
        (None, None, None),
    ],
)
def test_where_the_data_is(tmp_path: Path, given: str | None, written: str | None, found: str | None) -> None:
    spec = ModelSpec(name="m", target="y", dataset=written)
    assert dataset_of(given, spec, tmp_path) == (found and found.format(project=tmp_path.resolve()))


def test_a_dataset_outside_of_the_project(tmp_path: Path) -> None:
    with pytest.raises(BadSpec, match="leads out of the project"):
        dataset_of(None, ModelSpec(name="m", target="y", dataset="../../etc/passwd"), tmp_path)
