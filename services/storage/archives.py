"""Folders as archives: packed to the same bytes each time, unpacked safely, sealed against later writes."""

import gzip
import hashlib
import io
import lzma
import shutil
import tarfile
import tempfile
import zlib
from pathlib import Path, PurePosixPath

from services.host import sha256_of
from services.messaging import Permanent

SEAL = ".seal"
SKIPPED = {"__pycache__", ".git", ".venv", "node_modules"}


class BadArchive(Permanent):
    """The archive is damaged, or would write outside its folder."""


def pack_folder(folder: Path, leave_out: frozenset[Path] = frozenset()) -> bytes:
    """Return a tar.gz of `folder` that depends on names and contents only: sorted, without times and owners.

    Hidden files, caches, virtual environments and the paths in `leave_out` are left out. For a link to a file, the file
    itself is packed: the path of the link means nothing on another machine.
    """
    raw = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, compresslevel=6) as zipped,
        tarfile.open(fileobj=zipped, mode="w", dereference=True) as tar,
    ):
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder)
            if path.is_file() and path not in leave_out and not is_skipped(name):
                tar.add(path, str(PurePosixPath(name)), filter=_anonymous)
    return raw.getvalue()


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar or tar.gz into `folder`.

    Raises:
        BadArchive: not a tar, damaged, or with a member that leaves the folder.
        OSError: it cannot be written here, e.g. because the disk is full.
    """
    try:
        with tarfile.open(archive) as tar:
            if hasattr(tarfile, "data_filter"):
                _extract_filtered(tar, folder)
            else:
                extract_plain(tar, folder)
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError) as error:
        raise BadArchive(f"the archive cannot be unpacked: {error}") from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise BadArchive(f"the archive cannot be unpacked: {error}") from None  # as bz2 says it


def _extract_filtered(tar: tarfile.TarFile, folder: Path) -> None:
    try:
        tar.extractall(folder, filter="data")
    except tarfile.FilterError as error:
        raise BadArchive(f"the archive would write outside its folder: {error}") from None


def extract_plain(tar: tarfile.TarFile, folder: Path) -> None:
    """Unpack files and folders, nothing else: for Python before 3.11.4 (Debian 12's), whose tarfile has no filters.

    Raises:
        BadArchive: a member leaves the folder, or is a link or a device.
    """
    for member in tar:
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts or not (member.isfile() or member.isdir()):
            raise BadArchive(f"the archive would write outside its folder, or something else than files: {member.name}")
        member.mode &= 0o755
        tar.extract(member, folder)


def unpacked(archive: Path, folder: Path) -> None:
    """Make `folder` hold the content of `archive`, without anything that was written into it since."""
    seal = seal_of(folder)
    if folder.is_dir() and not (seal.exists() and seal.read_text() == _tree_digest(folder)):
        shutil.rmtree(folder)
    if not folder.is_dir():
        unpack_beside(archive, folder)


def seal_of(folder: Path) -> Path:
    """Return the file beside an unpacked folder that holds its digest."""
    return folder.with_suffix(SEAL)


def _tree_digest(folder: Path) -> str:
    """One digest over the names and contents of all files; bytecode caches come and go."""
    digest = hashlib.sha256()
    for file in sorted(file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts):
        digest.update(f"{file.relative_to(folder)}\n{sha256_of(file)}\n".encode())
    return digest.hexdigest()


def unpack_beside(archive: Path, folder: Path) -> None:
    """Unpack into a temporary folder and rename it: a kill leaves no incomplete folder under the final name.

    Raises:
        BadArchive: see `unpack`.
    """
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unpack-") as scratch:
        unpack(archive, Path(scratch) / "content")
        (Path(scratch) / "content").mkdir(exist_ok=True)
        (Path(scratch) / "seal").write_text(_tree_digest(Path(scratch) / "content"))
        (Path(scratch) / "seal").replace(seal_of(folder))
        try:
            (Path(scratch) / "content").rename(folder)
        except OSError:
            if not folder.is_dir():  # another process may have been first
                raise


def is_skipped(name: Path) -> bool:
    """Return whether `pack_folder` leaves out a path, relative to the folder: a hidden one, a cache and the like."""
    return any(part in SKIPPED or part.startswith(".") for part in name.parts)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mtime = member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o755 if member.mode & 0o100 else 0o644
    return member
