import io
import json
import tarfile
from pathlib import Path

import pytest

from belt import input_rows, project_check
from belt.output import Failed
from contracts.artifact_ref import CSV
from services.storage.archives import pack_folder

SPEC = "name: toy\ntarget: y\nestimator: pipeline:build\ndataset: data.csv\n"
LARGE = "x,y\n" + "1,0\n" * 300_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.yaml").write_text(SPEC)
    (tmp_path / "pipeline.py").write_text("def build():\n    import nothing_we_have\n")
    (tmp_path / "data.csv").write_text("x,y\n1,0\n")
    return tmp_path


def test_a_good_project_is_read_without_running_its_code(folder: Path) -> None:
    assert project_check.load_spec(folder).name == "toy"


@pytest.mark.parametrize(
    ("file", "text", "complaint"),
    [
        ("model.yaml", SPEC + "colour: red\n", "model.yaml line 5: unknown key 'colour'"),
        ("model.yaml", SPEC + "gate: {conditions: [beauty > 1]}\n", "no metric 'beauty'"),
        ("model.yaml", SPEC.replace("pipeline:", "pipes.main:"), "there is no pipes/main.py"),
        ("model.yaml", SPEC + "serve: {dockerfile: Nofile}\n", "the project has no such file"),
        ("model.yaml", SPEC + "serve: {dockerfile: docker}\n", "the project has no such file"),
        ("model.yaml", SPEC + "serve: {dockerfile: .docker/Dockerfile}\n", "which a push leaves out"),
        ("pipeline.py", "def make(): ...\n", "pipeline.py defines no 'build'"),
        ("pipeline.py", "x = 1\ndef build(:\n", "pipeline.py line 2: invalid syntax"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(folder: Path, file: str, text: str, complaint: str) -> None:
    for name in ("docker", ".docker"):
        (folder / name).mkdir()
        (folder / name / "Dockerfile").write_text("FROM scratch\n")
    (folder / file).write_text(text)
    with pytest.raises(Failed, match=r"(model\.yaml|pipeline\.py)") as failed:
        project_check.load_spec(folder)
    assert complaint in str(failed.value)


@pytest.mark.parametrize(
    "code", ["from other import build\n", "build = make\n", "try:\n    from a import build\nexcept ImportError: ...\n"]
)
def test_an_estimator_may_be_imported_or_assigned(folder: Path, code: str) -> None:
    (folder / "pipeline.py").write_text(code)
    assert project_check.load_spec(folder).estimator == "pipeline:build"


def test_a_folder_without_a_spec_is_no_project(tmp_path: Path) -> None:
    with pytest.raises(Failed, match=r"is not a model project: it has no model\.yaml"):
        project_check.load_spec(tmp_path)


def test_the_projects_own_data_is_the_default(folder: Path) -> None:
    source = project_check.data_source(folder, project_check.load_spec(folder), None)
    assert source.file == folder / "data.csv"
    assert project_check.excluded_files(folder, source) == frozenset()


def test_large_data_travels_beside_the_archive(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "data.csv").write_text(LARGE)
    assert "data.csv" not in packed(folder)
    monkeypatch.chdir(folder.parent)
    assert packed(Path(folder.name)) == {"model.yaml", "pipeline.py"}


def test_a_link_to_data_is_like_the_data(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("mounted") / "blob-17"
    elsewhere.write_text(LARGE)
    (folder / "data.csv").unlink()
    (folder / "data.csv").symlink_to(elsewhere)
    (folder / "again.csv").symlink_to("data.csv")
    source = project_check.data_source(folder, project_check.load_spec(folder), None)
    assert source.file is not None
    assert project_check.MEDIA_TYPES[source.file.suffix] == CSV
    assert packed(folder) == {"model.yaml", "pipeline.py"}


def packed(folder: Path) -> set[str]:
    """Return the files of a project that are in the archive of a push."""
    source = project_check.data_source(folder, project_check.load_spec(folder), None)
    archive = io.BytesIO(pack_folder(folder, project_check.excluded_files(folder, source)))
    with tarfile.open(fileobj=archive) as tar:
        return set(tar.getnames())


def test_a_uri_is_left_to_the_workers(folder: Path) -> None:
    assert project_check.data_source(folder, project_check.load_spec(folder), "s3://b/x.csv").uri == "s3://b/x.csv"


@pytest.mark.parametrize(
    ("data", "complaint"), [("gone.csv", "no such file: gone.csv"), ("model.yaml", "no such file")]
)
def test_data_that_is_not_there_is_refused(folder: Path, data: str, complaint: str) -> None:
    with pytest.raises(Failed, match=complaint):
        project_check.data_source(folder, project_check.load_spec(folder), data)


def test_data_of_an_unknown_kind_is_refused(folder: Path) -> None:
    with pytest.raises(Failed, match="neither CSV nor Parquet"):
        project_check.data_source(folder, project_check.load_spec(folder), str(folder / "pipeline.py"))


def test_a_push_without_any_data_is_refused(folder: Path) -> None:
    (folder / "model.yaml").write_text("name: toy\ntarget: y\n")
    with pytest.raises(Failed, match="names no dataset"):
        project_check.data_source(folder, project_check.load_spec(folder), None)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "x,name\n1,a\n2.5,\n"),
        ("a.json", '[{"x": 1.0, "name": "a"}, {"x": 2.5, "name": null}]'),
        ("a.json", '{"rows": [{"x": 1.0, "name": "a"}, {"x": 2.5, "name": null}]}'),
        ("a.jsonl", '{"x": 1.0, "name": "a"}\n{"x": 2.5, "name": null}\n'),
    ],
)
def test_rows_are_read_from_any_of_the_formats(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert input_rows.read(str(tmp_path / name), "rows") == [{"x": 1.0, "name": "a"}, {"x": 2.5, "name": None}]


def test_parquet_keeps_whole_numbers_whole(tmp_path: Path) -> None:
    import pandas as pd

    pd.DataFrame({"n": [1, 2], "yes": [True, False]}).to_parquet(tmp_path / "a.parquet")
    assert (
        json.dumps(input_rows.read(str(tmp_path / "a.parquet"), "rows"))
        == '[{"n": 1, "yes": true}, {"n": 2, "yes": false}]'
    )


def test_rows_may_be_the_argument_itself() -> None:
    assert input_rows.read('{"x": 1}', "rows") == [{"x": 1}]


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.json", b"{x", "is not JSON"),
        ("a.json", b"[]", "has no rows"),
        ("a.json", b"[1, 2]", "has no rows"),
        ("a.json", b"\xff\xfe", "cannot read"),
        ("a.csv", b"x,y\n", "has no rows"),
        ("a.csv", b"", "cannot read"),
        ("a.parquet", b"PAR1 not really", "cannot read"),
    ],
)
def test_rows_that_cannot_be_read_name_the_file(tmp_path: Path, name: str, content: bytes, complaint: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Failed, match=complaint):
        input_rows.read(str(tmp_path / name), "rows")


def test_a_file_that_is_not_there_is_named() -> None:
    for name in ("gone.csv", "gone.json"):
        with pytest.raises(Failed, match=f"cannot read {name}: No such file"):
            input_rows.read(name, "rows")
