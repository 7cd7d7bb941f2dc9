"""How a checkpoint's weights are stored: what is said of it, and plain weights out of it."""

from dllm_plugins.storage.reading import FORMS
from dllm_plugins.storage.reading import check_dtypes
from dllm_plugins.storage.reading import check_storage
from dllm_plugins.storage.reading import plain_dtype
from dllm_plugins.storage.reading import plain_tensors
from dllm_plugins.storage.settings import PLAIN
from dllm_plugins.storage.settings import Storage
from dllm_plugins.storage.settings import plain_config
from dllm_plugins.storage.settings import storage_of

__all__ = [
    "FORMS",
    "PLAIN",
    "Storage",
    "check_dtypes",
    "check_storage",
    "plain_config",
    "plain_dtype",
    "plain_tensors",
    "storage_of",
]
