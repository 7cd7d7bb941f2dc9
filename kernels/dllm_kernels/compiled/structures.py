"""What crosses the border to C++; field by field as in source/decoder.hpp and attention.hpp."""

import ctypes
from ctypes import POINTER
from ctypes import c_char_p
from ctypes import c_double
from ctypes import c_float
from ctypes import c_int
from ctypes import c_int32
from ctypes import c_int64
from ctypes import c_void_p


class Linear(ctypes.Structure):
    """A linear layer with its low-rank pair."""

    _fields_ = (
        ("weight", c_void_p),
        ("bias", c_void_p),
        ("down", c_void_p),
        ("up", c_void_p),
        ("levels", c_void_p),
        ("scale", c_void_p),
        ("offset", c_void_p),
        ("blocks", c_void_p),
        ("turned", c_void_p),
        ("kind", c_int32),
        ("coded", c_int32),
        ("outputs", c_int32),
        ("inputs", c_int32),
    )


class Layer(ctypes.Structure):
    """A decoder layer."""

    _fields_ = (
        ("input_norm", c_void_p),
        ("post_norm", c_void_p),
        ("q_norm", c_void_p),
        ("k_norm", c_void_p),
        ("qkv", Linear),
        ("out", Linear),
        ("gate_up", Linear),
        ("down", Linear),
    )


class Embedding(ctypes.Structure):
    """Embeddings of tokens, the first of them in blocks where there are any."""

    _fields_ = (("plain", c_void_p), ("blocks", c_void_p), ("kind", c_int32), ("coded", c_int32))


class Model(ctypes.Structure):
    """A decoder without its head."""

    _fields_ = (
        ("layers", c_int32),
        ("hidden", c_int32),
        ("heads", c_int32),
        ("kv_heads", c_int32),
        ("head_dim", c_int32),
        ("intermediate", c_int32),
        ("rank", c_int32),
        ("eps", c_float),
        ("low_rank_scale", c_float),
        ("embedding", Embedding),
        ("norm", c_void_p),
        ("layer", POINTER(Layer)),
    )


class Part(ctypes.Structure):
    """One part of a pass and its row's store."""

    _fields_ = (
        ("row", c_int32),
        ("rows", c_int32),
        ("kept", c_int32),
        ("round", c_int32),
        ("capacity", c_int64),
        ("keys", c_void_p),
        ("values", c_void_p),
        ("seen", c_void_p),
    )


class Pass(ctypes.Structure):
    """One pass."""

    _fields_ = (
        ("rows", c_int32),
        ("parts", c_int32),
        ("rounds", c_int32),
        ("threads", c_int32),
        ("tokens", c_void_p),
        ("positions", c_void_p),
        ("cosines", c_void_p),
        ("sines", c_void_p),
        ("noisy", c_void_p),
        ("part", POINTER(Part)),
        ("hidden", c_void_p),
        ("seconds", POINTER(c_double)),
    )


class Drawing(ctypes.Structure):
    """How one position is drawn."""

    _fields_ = (("noise", c_void_p), ("temperature", c_double), ("uniform", c_double))


class Unmasked(ctypes.Structure):
    """Where the unmasking head's results go."""

    _fields_ = (("token", c_void_p), ("probability", c_void_p), ("entropy", c_void_p), ("margin", c_void_p))


def declare(library: ctypes.CDLL) -> None:
    """Types of the library's functions."""
    library.dllm_use_openmp.argtypes = [c_void_p, c_void_p, c_void_p]
    library.dllm_use_openmp.restype = None
    library.dllm_said.restype = c_char_p
    library.dllm_fail.argtypes = [c_int, c_int, c_int]
    library.dllm_fail.restype = None
    library.dllm_workspace.restype = c_void_p
    library.dllm_free_workspace.argtypes = [c_void_p]
    library.dllm_free_workspace.restype = None
    library.dllm_forward.argtypes = [POINTER(Model), POINTER(Pass), c_void_p, c_int]
    library.dllm_linear.argtypes = [c_void_p, POINTER(Linear), c_void_p, c_int, c_int, c_int]
    library.dllm_unmask.argtypes = [
        c_void_p,
        POINTER(Linear),
        POINTER(Drawing),
        POINTER(Unmasked),
        c_int,
        c_int,
        c_int,
    ]
