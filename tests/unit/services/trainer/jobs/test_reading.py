"""Files that the trainer reads, and the errors for those it cannot read."""

from pathlib import Path

import pandas as pd
import pytest

from services.trainer.jobs.data_schema import Rejected
from services.trainer.jobs.reading import read

FRAME = pd.DataFrame({"size": [1.5, 2.5, None], "colour": ["red", None, "blue"], "label": [0, 1, 0]})


def load(path: Path, name: str | None = None) -> pd.DataFrame:
    return read(str(path), name or path.name)


def refusal(path: Path, name: str | None = None) -> str:
    with pytest.raises(Rejected) as refused:
        load(path, name)
    return str(refused.value)


@pytest.mark.parametrize("uri", [False, True])
def test_parquet_is_known_by_its_content(tmp_path: Path, uri: bool) -> None:
    path = tmp_path / "an-artifact"
    FRAME.to_parquet(path)
    pd.testing.assert_frame_equal(read(f"file://{path}" if uri else str(path), "data"), FRAME)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_csv_with_any_usual_separator(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "data.csv"
    FRAME.to_csv(path, sep=separator, encoding="utf-8-sig")  # with pandas' unnamed index column and Excel's mark
    pd.testing.assert_frame_equal(load(path), FRAME)


def test_a_saved_index_is_no_column(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    FRAME[FRAME["label"] == 0].to_parquet(path)
    assert list(load(path).columns) == ["size", "colour", "label"]


def test_no_such_file(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.csv") == "dataset none.csv does not exist"


def test_a_folder(tmp_path: Path) -> None:
    assert refusal(tmp_path, "data") == "dataset data cannot be read: Is a directory"


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "data.csv").touch()
    assert refusal(tmp_path / "data.csv") == "dataset data.csv is empty: 0 bytes"


def test_header_only(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("a,b\n")
    assert refusal(tmp_path / "data.csv") == "dataset data.csv has no rows"


def test_truncated_parquet(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    FRAME.to_parquet(path)
    path.write_bytes(path.read_bytes()[:-20])
    assert refusal(path) == "dataset data.parquet is a damaged Parquet file, perhaps cut short"


def test_parquet_in_name_only(tmp_path: Path) -> None:
    (tmp_path / "data.parquet").write_text("a,b\n1,2\n")
    assert "is not a Parquet file: it begins with b'a,b\\n'" in refusal(tmp_path / "data.parquet")


def test_csv_with_a_ragged_row(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("a,b\n1,2\n1,2,3,4\n")
    assert "Expected 2 fields in line 3, saw 4" in refusal(tmp_path / "data.csv")


def test_binary_rubbish(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_bytes(b"a,b\n\xff\xfe\x00")
    assert "neither Parquet nor UTF-8 text: byte 4" in refusal(tmp_path / "data.csv")
