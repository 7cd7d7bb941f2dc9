"""Keys and values of one stream, as bytes outside llama.cpp.

llama.cpp writes how many streams the context has and a count of positions for each, and
reads only what was written by a context with as many. The rest does not depend on it, so
that is what is kept, and the counts are written anew.
"""

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dllm_plugins.errors import GgufError
from dllm_plugins.llama_cpp.library import failed

#: Words before the counts: magic, stream, number of streams.
_HEAD = 3
_WORD = 4
_Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class StreamState:
    """The first `length` positions of a stream.

    :param magic: llama.cpp's, of the version that wrote it.
    :param data: positions, keys and values of all layers, uint8.
    """

    length: int
    magic: int
    data: _Bytes


def _address(data: _Bytes) -> Any:
    return data.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))


def read(library: Any, context: Any, stream: int) -> _Bytes:
    """What llama.cpp writes of a stream; uint8.

    :raises GgufError: if it writes something else than it announced.
    """
    size = library.llama_state_seq_get_size(context, stream)
    data = np.empty(size, np.uint8)
    if library.llama_state_seq_get_data(context, _address(data), size, stream) != size:
        raise failed(f"llama.cpp did not write the {size} bytes of stream {stream}", "start the row again")
    return data


def write(library: Any, context: Any, stream: int, data: _Bytes) -> None:
    """Put into a stream what :func:`read` found in one of a context with as many streams.

    :raises GgufError: if llama.cpp refuses it.
    """
    if library.llama_state_seq_set_data(context, _address(data), len(data), stream) != len(data):
        raise failed(f"llama.cpp did not take the {len(data)} bytes of stream {stream}", "start the row again")


def save(library: Any, context: Any, stream: int, streams: int) -> StreamState:
    """A stream's state, from a context with that many streams."""
    data = read(library, context, stream)
    words = data[: (_HEAD + streams) * _WORD].view(np.uint32)
    counts = data[_HEAD * _WORD : (_HEAD + stream + 1) * _WORD].view(np.uint32)
    length = int(counts[-1])
    begin = (_HEAD + stream + 1) * _WORD
    end = len(data) - (streams - stream - 1) * _WORD
    if words[2] != streams or counts[:-1].any() or data[end:].any() or not begin <= end:
        raise GgufError(
            f"llama.cpp wrote stream {stream} of {streams} in a way that is not known; "
            f"install the version of llama-cpp-python this package asks for"
        )
    return StreamState(length, int(words[0]), data[begin:end].copy())


def restore(library: Any, context: Any, stream: int, streams: int, state: StreamState) -> None:
    """Put a state into a stream of a context with that many streams."""
    head = np.zeros(_HEAD + 1, np.uint32)
    head[:] = state.magic, stream, streams, state.length
    rest = np.zeros((streams - 1) * _WORD, np.uint8)
    write(library, context, stream, np.concatenate([head.view(np.uint8), state.data, rest]))
