"""Reading of CSV or Parquet from a path or any fsspec URI into a frame, with an exact reason when that fails."""

import shutil
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from services.trainer.jobs.data_schema import Rejected

MAGIC = b"PAR1"


def download(uri: str, to: Path) -> None:
    """Copy the file at an fsspec URI to a local file; each protocol raises errors of its own."""
    import fsspec  # only a remote dataset needs it

    with fsspec.open(uri, "rb") as source, to.open("wb") as file:
        shutil.copyfileobj(source, file)


def read(location: str, name: str) -> pd.DataFrame:
    """Return all rows of a local file.

    Args:
        location: a path or a file:// URI.
        name: name of the dataset in messages.

    Raises:
        Rejected: it is missing, unreadable, cut short, or has no rows.
    """
    try:
        frame = _read_file(Path(location.removeprefix("file://")), name)
    except FileNotFoundError:
        raise Rejected(f"dataset {name} does not exist") from None
    except OSError as error:
        raise Rejected(f"dataset {name} cannot be read: {error.strerror or error}") from None
    if frame.empty:
        raise Rejected(f"dataset {name} has no rows")
    return frame


def _read_file(path: Path, name: str) -> pd.DataFrame:
    with path.open("rb") as file:
        head = file.read(len(MAGIC))
    if not head:
        raise Rejected(f"dataset {name} is empty: 0 bytes")
    if head == MAGIC:
        return _read_parquet(path, name)
    if Path(name).suffix in (".parquet", ".pq"):
        raise Rejected(f"dataset {name} is not a Parquet file: it begins with {head!r} instead of {MAGIC!r}")
    return _read_csv(path, name)


def _read_parquet(path: Path, name: str) -> pd.DataFrame:
    try:
        table = pq.read_table(path)
    except MemoryError:
        raise  # Arrow's own is an ArrowException too, and the file may be fine
    except pa.ArrowNotImplementedError as error:
        raise Rejected(f"dataset {name} is Parquet of a kind that cannot be read: {error}") from None
    except (pa.ArrowException, OSError):
        # Arrow's own words are the same again, with a path that means nothing to the person.
        raise Rejected(f"dataset {name} is a damaged Parquet file, perhaps cut short") from None
    doubled = sorted({column for column in table.column_names if table.column_names.count(column) > 1})
    if doubled:
        raise Rejected(*(f"column {column!r}: there are several of that name" for column in doubled))
    # A saved pandas index becomes a column of its own; it is a position, not data.
    index = [column for column in table.column_names if column.startswith("__index_level_")]
    frame: pd.DataFrame = table.drop_columns(index).to_pandas(ignore_metadata=True)
    return frame


def _read_csv(path: Path, name: str) -> pd.DataFrame:
    try:
        with path.open(encoding="utf-8-sig") as file:
            header = file.readline()
        delimiter = max(",;\t", key=header.count)
        frame = pd.read_csv(path, sep=delimiter, low_memory=False, encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise Rejected(
            f"dataset {name} is neither Parquet nor UTF-8 text: byte {error.start}: {error.reason}"
        ) from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise Rejected(f"dataset {name} is not a CSV table: {str(error).strip()}") from None
    unnamed = [column for column in frame.columns if str(column).startswith("Unnamed: ")]
    return frame.drop(columns=unnamed).rename(columns=str)
