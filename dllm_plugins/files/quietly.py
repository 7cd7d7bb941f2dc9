"""Loading without the bars that other libraries draw."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Draw none of transformers' progress bars in the block; whoever asked for an answer did not ask for them."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextmanager
def quiet_gguf() -> Iterator[None]:
    """The same for transformers' reader of GGUF files, which calls tqdm without asking whether bars are wanted."""
    from transformers import modeling_gguf_pytorch_utils

    reader: Any = modeling_gguf_pytorch_utils
    shown = reader.tqdm
    reader.tqdm = partial(shown, disable=True)
    try:
        yield
    finally:
        reader.tqdm = shown
