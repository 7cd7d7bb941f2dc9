"""Golden cases as a repository keeps them: one archive per case, and the checksums of what is inside.

The folder holds `NAME.tar.xz` for every case and `SHA256SUMS`, as `sha256sum */... > SHA256SUMS`
writes it beside the unpacked cases. Random weights hardly shrink, so it is the checksums that are
compared again whenever the cases are used, not the archives that are unpacked again.
"""

import hashlib
import tarfile
from collections.abc import Mapping
from pathlib import Path

from dllm_plugins.errors import CheckpointError
from dllm_plugins.files.cache import cache_folder
from dllm_plugins.files.reading import regular
from dllm_plugins.files.whole import beside

SUMS = "SHA256SUMS"
ENDING = ".tar.xz"
#: Where the cases of this project lie in a clone of it. No wheel holds them.
OWN = Path(__file__).parents[2] / "tests" / "golden"
_REMEDY = "get the folder again, from the commit that it belongs to"


def are_in(folder: Path) -> bool:
    """Whether a folder is one of archives, complete or not."""
    return (folder / SUMS).exists() or any(folder.glob(f"*{ENDING}"))


def unpacked(folder: Path) -> list[Path]:
    """The cases of a folder of archives as folders, by name, each of their files as the checksums say.

    They are in the user's cache, in a folder named after the checksums. A case that is not there yet,
    or of which a file was changed or removed, is unpacked; several processes may ask at once.

    :raises CheckpointError: if an archive is missing, damaged, unknown to the checksums, or holds other files.
    """
    wanted, digest = _sums(folder)
    archives = {path.name.removesuffix(ENDING) for path in folder.glob(f"*{ENDING}")}
    if odd := sorted(archives ^ wanted.keys()):
        raise CheckpointError(f"{folder} has an archive without checksums, or the other way round: {odd}; {_REMEDY}")
    place = cache_folder() / "golden" / digest[:16]
    try:
        place.mkdir(parents=True, exist_ok=True)
        for name, sums in wanted.items():
            if not _holds(place / name, sums):
                _unpack(folder / f"{name}{ENDING}", place / name, sums)
    except OSError as error:
        raise CheckpointError(
            f"cannot unpack the cases of {folder} into {place}: {error}; free some room there, or set DLLM_CACHE to a "
            "folder that can be written"
        ) from error
    return [place / name for name in sorted(wanted)]


def _sums(folder: Path) -> tuple[dict[str, dict[str, str]], str]:
    """Checksums by case and file, and one of them all."""
    data = regular(folder / SUMS, _REMEDY).read_bytes()
    found: dict[str, dict[str, str]] = {}
    for line in data.decode("utf-8", "replace").splitlines():
        checksum, _, path = line.partition("  ")
        case, _, file = path.partition("/")
        parts = Path(file).parts
        if not file or ".." in (case, *parts) or Path(path).is_absolute():
            raise CheckpointError(f"{folder / SUMS} has a line {line!r} that names no file of a case; {_REMEDY}")
        found.setdefault(case, {})[file] = checksum
    if not found:
        raise CheckpointError(f"{folder / SUMS} names no case; {_REMEDY}")
    return found, hashlib.sha256(data).hexdigest()


def _holds(place: Path, sums: Mapping[str, str]) -> bool:
    """Whether every file of an unpacked case is as it should be."""
    return all((place / file).is_file() and _matches((place / file).read_bytes(), sums[file]) for file in sums)


def _matches(data: bytes, checksum: str) -> bool:
    return hashlib.sha256(data).hexdigest() == checksum


def _unpack(archive: Path, place: Path, sums: Mapping[str, str]) -> None:
    """Write the files that the checksums name, and nothing else that the archive may hold."""
    with beside(place, wait=True) as part:
        if _holds(place, sums):  # by another process, while this one waited
            return
        for file, data in _files(archive, place.name, sums).items():
            (part / file).parent.mkdir(parents=True, exist_ok=True)
            (part / file).write_bytes(data)


def _files(archive: Path, case: str, sums: Mapping[str, str]) -> dict[str, bytes]:
    import lzma  # which not every build of Python has

    found: dict[str, bytes] = {}
    try:
        with tarfile.open(archive, "r:xz") as files:
            for file in sums:
                stream = files.extractfile(f"{case}/{file}")
                found[file] = b"" if stream is None else stream.read()
    except (KeyError, EOFError, tarfile.TarError, lzma.LZMAError) as error:
        raise CheckpointError(f"cannot unpack {archive}: {error}; {_REMEDY}") from error
    for file, data in found.items():
        if not _matches(data, sums[file]):
            raise CheckpointError(f"{file} in {archive} is not what {SUMS} beside it says; {_REMEDY}")
    return found
