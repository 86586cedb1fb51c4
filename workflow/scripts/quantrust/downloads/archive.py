"""Unpacking downloaded zip archives: their files are put beside them, without the archive's folders."""

import lzma
import shutil
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from quantrust.disk import require_space
from quantrust.durable import sync_files
from quantrust.errors import QuantrustError
from quantrust.files import atomic_path, path_inside
from quantrust.progress import progress

CHUNK = 1 << 20
ENCRYPTED = 0x1
"""Bit of a member's flags (APPNOTE.TXT of PKWARE, section 4.4.4)."""


def unpack(archive: Path, folder: Path) -> None:
    """Put the files of a zip archive into a folder, without the archive's own folders; those already there stay.

    Parameters
    ----------
    archive : Path
    folder : Path

    Raises
    ------
    QuantrustError
        If it is not a zip archive, is damaged, empty or encrypted, or is compressed in a way that Python does not know;
        if two of its files have the same name, a file in the folder cannot have one of the names, or the disk is too
        small.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = _members(opened, archive, folder)
            missing = {path: member for path, member in members.items() if not _is_unpacked(path, member)}
            require_space(folder, sum(member.file_size for member in missing.values()))
            with progress(f"unpacking {archive.name}", len(missing), "files") as bar:
                for path, member in missing.items():
                    with (
                        # Another run compares the files that are there, so all may reach the disk together.
                        atomic_path(path, durable=False) as partial,
                        opened.open(member) as source,
                        open(partial, "wb") as to,
                    ):
                        shutil.copyfileobj(source, to, CHUNK)
                    bar.update()
            sync_files(missing)
    except NotImplementedError as error:
        raise QuantrustError(f"{archive}: uses {error}; unpack it yourself into {folder}") from None
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, struct.error, ValueError, OSError) as error:
        raise QuantrustError(
            f"{archive}: is not a whole zip archive ({error}); delete it and download it again"
        ) from None


def _members(opened: zipfile.ZipFile, archive: Path, folder: Path) -> dict[Path, zipfile.ZipInfo]:
    """Return the members that are files by the paths that they get."""
    members: dict[Path, zipfile.ZipInfo] = {}
    for member in opened.infolist():
        name = PurePosixPath(member.filename).name
        # Some systems add hidden files of their own.
        if member.is_dir() or name.startswith("."):
            continue
        path = path_inside(folder, name, archive)
        if path in members:
            raise QuantrustError(f"{archive}: holds two files with the name {name}; unpack it yourself")
        if path == archive or path.is_dir():
            raise QuantrustError(f"{archive}: holds a file with the name {name}, which is taken; unpack it yourself")
        if member.flag_bits & ENCRYPTED:
            raise QuantrustError(f"{archive}: {name} is encrypted; unpack it yourself into {folder}")
        members[path] = member
    if not members:
        raise QuantrustError(f"{archive}: holds no file; delete it and download it again")
    return members


def _is_unpacked(path: Path, member: zipfile.ZipInfo) -> bool:
    if not path.is_file() or path.stat().st_size != member.file_size:
        return False
    checksum = 0
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            checksum = zlib.crc32(chunk, checksum)
    return checksum == member.CRC
