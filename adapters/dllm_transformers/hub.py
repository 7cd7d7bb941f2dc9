"""The `custom_generate` folder that a checkpoint's repository can carry."""

import shutil
from importlib.resources import files
from pathlib import Path


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
