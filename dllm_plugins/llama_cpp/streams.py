"""Streams of keys and values over one model, as many and as long as are needed.

Every stream has memory of its own (`kv_unified=False`): results then do not depend on the other
streams of a call. llama.cpp fixes sizes when a context is made, so this one starts small
and is replaced by a larger one, states moved, when something does not fit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dllm_plugins.errors import GgufError
from dllm_plugins.errors import OptionError
from dllm_plugins.llama_cpp import state as states
from dllm_plugins.llama_cpp.batch import LlamaBatch
from dllm_plugins.llama_cpp.library import Handle
from dllm_plugins.llama_cpp.library import complaints
from dllm_plugins.llama_cpp.library import failed
from dllm_plugins.llama_cpp.library import library
from dllm_plugins.llama_cpp.model import GgufModel
from dllm_plugins.llama_cpp.size import Size

#: ggml's numbers of the types keys and values may have.
CACHE_TYPES = {"F32": 0, "F16": 1}


@dataclass(slots=True)
class Made:
    """One context of llama.cpp, and what belongs to it and to no other.

    :param adapters: those switched on, with their scales; None while nobody can tell.
    """

    size: Size
    handle: Handle
    memory: Any
    batch: LlamaBatch
    adapters: Sequence[tuple[Any, float]] | None = ()


class Streams:
    """A llama.cpp context that grows.

    :param cache: the type of keys and values, "F16" or "F32".
    :raises OptionError: for another type.
    """

    def __init__(self, model: GgufModel, cache: str = "F16", size: Size | None = None) -> None:
        if cache not in CACHE_TYPES:
            raise OptionError(f"cache type {cache!r} is not one of {', '.join(CACHE_TYPES)}")
        self.model = model
        self.cache = cache
        self._library = library()
        self._most = int(self._library.llama_max_parallel_sequences())
        self._first = (size or Size()).grown(1, 1, 1, self._most)
        self._open: set[int] = set()
        self._closed = False
        self._now = self._make(self._first)
        model.register(self)

    @property
    def size(self) -> Size:
        """What there is room for."""
        return self._now.size

    @property
    def position_bytes(self) -> int:
        """Memory of the keys and values of one position of a stream."""
        return self.model.cached_numbers * (4 if self.cache == "F32" else 2)

    @property
    def _context(self) -> Any:
        return self._now.handle.pointer

    @property
    def _memory(self) -> Any:
        return self._now.memory

    def _make(self, size: Size) -> Made:
        lib = self._library
        complaints()
        params = lib.llama_context_default_params()
        params.n_ctx, params.n_seq_max = size.positions * size.streams, size.streams
        params.n_batch = params.n_ubatch = size.tokens
        params.n_threads = params.n_threads_batch = self.model.threads
        params.type_k = params.type_v = CACHE_TYPES[self.cache]
        params.flash_attn_type = 0
        params.kv_unified, params.no_perf = False, True
        made = Handle(lib.llama_free, lib.llama_init_from_model, self.model.pointer, params, needs=self.model.handle)
        if not made.pointer:
            raise failed(
                f"llama.cpp has no room for {size.streams} rows of {size.positions} positions of {self.model.path}",
                "decode fewer or shorter rows together",
            )
        return Made(size, made, lib.llama_get_memory(made.pointer), self._room(size.tokens))

    def _room(self, tokens: int) -> LlamaBatch:
        """For the tokens of a call."""
        return LlamaBatch(self._library, tokens, self.model.width)

    def _reserve(self, streams: int, positions: int, tokens: int) -> None:
        """Replace the context by a larger one if it lacks room; streams keep their numbers and states."""
        self._replace(self.size.grown(streams, positions, tokens, self._most))

    @property
    def large(self) -> bool:
        """Whether it has grown far beyond what it was made for."""
        return self.size.exceeds(self._first)

    def shrink(self) -> None:
        """Give back what was grown; only while no stream is open."""
        if not self._open and not self._closed:
            self._replace(self._first)

    def _replace(self, size: Size) -> None:
        if size == self.size:
            return
        made = self._make(size)
        try:
            for stream in self._open:
                state = states.save(self._library, self._context, stream, self.size.streams)
                if state.length:
                    states.restore(self._library, made.handle.pointer, stream, size.streams, state)
        except BaseException:
            made.handle.free()
            raise
        # All of it at once: an interrupt must not leave a part of either.
        old, self._now = self._now, made
        old.handle.free()

    def close(self) -> None:
        """Give the memory back; nothing can be decoded any more."""
        self._closed = True
        self._open.clear()
        self._now.handle.free()

    @property
    def closed(self) -> bool:
        """Whether its memory was given back."""
        return self._closed

    def _check_open(self, stream: int | None = None) -> None:
        if self._closed:
            raise GgufError(f"the model of {self.model.path} is closed; load it again")
        if stream is not None and stream not in self._open:
            raise GgufError(f"stream {stream} is not open; open streams: {sorted(self._open) or 'none'}")

    def open(self) -> int:
        """The number of a new, empty stream.

        :raises GgufError: if the model keeps no keys, or all of llama.cpp's streams are in use.
        """
        self._check_open()
        if not self._memory:
            raise GgufError(f"{self.model.path} ({self.model.header.architecture}) keeps no keys; it has no streams")
        if len(self._open) >= self._most:
            raise GgufError(f"all {self._most} streams of llama.cpp are in use; finish some rows first")
        stream = next(number for number in range(self._most) if number not in self._open)
        self._reserve(stream + 1, 1, 1)
        self._open.add(stream)
        return stream

    def close_stream(self, stream: int) -> None:
        """Empty a stream, whose number may be given out again."""
        self._check_open(stream)
        self.cut(stream, 0)
        self._open.discard(stream)

    @property
    def streams(self) -> int:
        """How many are open."""
        return len(self._open)

    @property
    def opened(self) -> tuple[int, ...]:
        """Which are open."""
        return tuple(self._open)

    def length(self, stream: int) -> int:
        """Positions a stream holds."""
        self._check_open(stream)
        return int(self._library.llama_memory_seq_pos_max(self._memory, stream)) + 1

    def cut(self, stream: int, length: int) -> None:
        """Drop everything behind the first `length` positions."""
        self._check_open(stream)
        if length < 0:
            raise GgufError(f"a stream cannot be cut to {length} positions; give 0 or more")
        self._library.llama_memory_seq_rm(self._memory, stream, length, -1)

    def copy(self, source: int, length: int, target: int | None = None) -> int:
        """The first `length` positions of a stream in another one, a new one if not given; returns its number.

        Bytes are moved at once: llama.cpp's own copy waits for the next call, is only possible whole
        (anything else aborts), and a state saved before that call would hold stale keys.
        """
        self._check_open(source)
        if not 0 <= length <= self.length(source):
            raise GgufError(f"stream {source} has {self.length(source)} positions, not {length}; copy fewer")
        target = self.open() if target is None else target
        self._check_open(target)
        self.cut(target, 0)
        if length:
            data = states.read(self._library, self._context, source)
            states.write(self._library, self._context, target, data)
            self.cut(target, length)
        return target

    def save(self, stream: int) -> states.StreamState:
        """A stream's keys and values as bytes; the stream may then be closed."""
        self._check_open(stream)
        return states.save(self._library, self._context, stream, self.size.streams)

    def load(self, state: states.StreamState, length: int, target: int | None = None) -> int:
        """The first `length` positions of a saved stream in another one, a new one if not given; returns its number."""
        if not 0 <= length <= state.length:
            raise GgufError(f"the saved stream has {state.length} positions, not {length}; ask for fewer")
        target = self.open() if target is None else target
        self._check_open(target)
        self.cut(target, 0)
        if length:
            self._reserve(1, state.length, 1)
            states.restore(self._library, self._context, target, self.size.streams, state)
            self.cut(target, length)
        return target
