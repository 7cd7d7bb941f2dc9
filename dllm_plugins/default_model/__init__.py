"""The default model: SmolLM2-135M-Instruct with a denoiser of its own, on every backend."""

from pathlib import Path


def base_folder() -> Path:
    """The folder of the default model's base weights, for other libraries to load.

    :raises DownloadError: if they are not there yet, with the command that fetches them.
    """
    from dllm_plugins.default_model.base_model import require_base

    return require_base()
