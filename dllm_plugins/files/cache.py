"""The folders of what was downloaded, converted, compiled and measured, and of what users write."""

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """Where downloaded and converted weights live: `DLLM_CACHE`, else the user's cache."""
    chosen = os.environ.get("DLLM_CACHE")
    return Path(chosen) if chosen else platformdirs.user_cache_path("dllm-plugins")


def config_folder() -> Path:
    """Where users write files for us: `DLLM_CONFIG`, else the user's folder of settings."""
    chosen = os.environ.get("DLLM_CONFIG")
    return Path(chosen) if chosen else platformdirs.user_config_path("dllm-plugins")
