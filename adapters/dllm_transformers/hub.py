"""The `custom_generate` folder that a checkpoint's repository can carry."""

import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

from transformers import GenerationMixin

from dllm_plugins.errors import OptionError
from dllm_plugins.messages import shown


def custom_generate_folder() -> Path:
    """The `custom_generate` folder that a checkpoint's repository can carry."""
    return Path(str(files("dllm_transformers") / "custom_generate"))


def write_custom_generate(folder: Path) -> None:
    """Put `custom_generate/` into a checkpoint's folder.

    Then `model.generate(..., custom_generate=FOLDER_OR_HUB_ID, trust_remote_code=True)`
    samples by diffusion where dllm-plugins is installed.
    """
    target = Path(folder) / "custom_generate"
    shutil.copytree(
        custom_generate_folder(), target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
    )


def check_strategy(model: GenerationMixin, strategy: Any, trust_remote_code: Any) -> None:
    """Refuse a `custom_generate` that transformers would ask about on standard input, pass over, or not find.

    :param strategy: a function, or the repository or folder of one.
    :raises OptionError: with what to give.
    """
    if callable(strategy):
        return
    asked = f"custom_generate={shown(strategy)}"
    if not isinstance(strategy, str):
        raise OptionError(f"{asked} is neither a function nor the name of a repository or folder; leave it out")
    if trust_remote_code is not True:
        raise OptionError(
            f"{asked} runs code of that repository: leave it out, or where you trust it give trust_remote_code=True"
        )
    try:
        model.load_custom_generate(strategy, trust_remote_code=True)
    # The hub's validators, the connection, and the file itself when it is imported.
    except Exception as error:
        raise OptionError(f"{asked} cannot be loaded ({error}); give a repository or folder that holds one") from error
