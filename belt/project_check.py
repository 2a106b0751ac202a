"""Checks a model project before it is pushed, so that a mistake is found before a run starts.

The estimator's code is parsed, never run: it may need packages that only the trainer has.
"""

import ast
from dataclasses import dataclass
from pathlib import Path

from belt.output import Failed
from contracts.artifact_ref import CSV, PARQUET
from contracts.model_spec import BadSpec, ModelSpec, parse
from services.storage import is_skipped

MEDIA_TYPES = {".csv": CSV, ".parquet": PARQUET, ".pq": PARQUET}
ARCHIVED_BYTES = 1_000_000
"""Largest data file that also stays in the project's archive, where an event without a dataset finds it. The archive is
part of every image, so larger files are left out."""


@dataclass(frozen=True)
class Source:
    """The data of a push: a local file to upload, or a URI that workers can read."""

    file: Path | None = None
    uri: str | None = None


def load_spec(folder: Path) -> ModelSpec:
    """Read the model.yaml of a project and check it together with the code it names.

    Raises:
        Failed: something is wrong; the text names the file and the line.
    """
    try:
        spec = parse((folder / "model.yaml").read_text())
    except FileNotFoundError:
        raise Failed(f"{folder} is not a model project: it has no model.yaml. Name the folder that has one") from None
    except UnicodeDecodeError as error:
        raise Failed(f"{folder}/model.yaml is not UTF-8: {error.reason} at byte {error.start}") from None
    except BadSpec as error:
        raise Failed(str(error)) from None
    if spec.estimator:
        _check_estimator(folder, spec.estimator)
    if spec.serve.dockerfile:
        _check_dockerfile(folder, Path(spec.serve.dockerfile))
    return spec


def data_source(folder: Path, spec: ModelSpec, data: str | None) -> Source:
    """Return the data of a push: `--data`, else the dataset in model.yaml.

    Raises:
        Failed: no data is named, or the file does not exist, or it is neither CSV nor Parquet.
    """
    named = data or spec.dataset
    if not named:
        raise Failed("no data: model.yaml names no dataset; add `dataset: data/rows.parquet` or use --data URI")
    if "://" in named and not named.startswith("file://"):
        return Source(uri=named)
    file = Path(named.removeprefix("file://"))
    if data is None:
        file = folder / file
    if not file.is_file():
        raise Failed(f"no such file: {file} ({'--data' if data else 'dataset in model.yaml'})")
    if file.suffix.lower() not in MEDIA_TYPES:
        raise Failed(f"{file.name} is neither CSV nor Parquet: its name must end in .csv, .parquet or .pq")
    return Source(file=file)


def excluded_files(folder: Path, source: Source) -> frozenset[Path]:
    """Return the files that stay out of the archive: a large data file, which is uploaded alone, and links to it."""
    if not source.file or source.file.stat().st_size <= ARCHIVED_BYTES:
        return frozenset()
    return frozenset(path for path in folder.rglob("*") if path.is_file() and path.samefile(source.file))


def _check_dockerfile(folder: Path, named: Path) -> None:
    if not (folder / named).is_file():
        raise Failed(f"model.yaml names the file {named} (serve.dockerfile), but the project has no such file")
    if is_skipped(named):
        raise Failed(f"serve.dockerfile in model.yaml: {named} is hidden or in a cache folder, which a push leaves out")


def _check_estimator(folder: Path, named: str) -> None:
    module, _, function = named.partition(":")
    path = folder.joinpath(*module.split("."))
    file = next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)
    if file is None:
        raise Failed(f"model.yaml names the estimator {named}, but there is no {module.replace('.', '/')}.py")
    try:
        code = ast.parse(file.read_bytes(), str(file))
    except (SyntaxError, ValueError) as error:
        where = f" line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise Failed(f"{file.name}{where}: {error.args[0]}") from None
    if function not in (names := _top_level(code)) and "*" not in names:
        raise Failed(f"model.yaml names the estimator {named}, but {file.name} defines no {function!r}")


def _top_level(code: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in code.body:
        match node:
            case ast.FunctionDef() | ast.ClassDef() | ast.AsyncFunctionDef():
                names.add(node.name)
            case ast.Import() | ast.ImportFrom():
                names.update(alias.asname or alias.name for alias in node.names)
            case ast.Assign():
                names.update(target.id for target in node.targets if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
            case ast.If() | ast.Try():
                names.add("*")  # defined conditionally: only running the code would show which names exist
    return names
