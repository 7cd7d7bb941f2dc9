"""The folder of what was downloaded, converted and compiled."""

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """Where downloaded and converted weights live: `DLLM_CACHE`, else the user's cache."""
    chosen = os.environ.get("DLLM_CACHE")
    return Path(chosen) if chosen else platformdirs.user_cache_path("dllm-plugins")
