"""What `serve` of transformers does not do by itself for our models.

Requests that cannot be honoured, and models that are not there, become answers that say so: its own handlers
let them through as "Internal Server Error", with the reason in the log only, and begin a stream before they know
whether it has anything to say. And an answer that the model's context cuts ends by `length`: the server compares
its tokens with what was asked for.
"""

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from functools import wraps
from typing import Any

from transformers.cli.serving import server
from transformers.cli.serving import utils

from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import DllmError
from dllm_plugins.errors import OptionError
from dllm_plugins.errors import RequestError
from dllm_transformers.diffusion_model import DiffusionModelForCausalLM
from dllm_transformers.modeling import TriModeForCausalLM


class _Beginning:
    """A model whose streamed answer is watched until its first token, or until it fails.

    :param told: set by then.
    """

    def __init__(self, model: Any) -> None:
        self.told = asyncio.Event()
        self.error: Exception | None = None
        self._model = model
        self._loop = asyncio.get_running_loop()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def generate(self, *args: Any, streamer: Any, **kwargs: Any) -> Any:
        """As the model's; called in the server's thread of models."""
        put, puts = streamer.put, 0

        def watched(value: Any) -> None:
            nonlocal puts
            put(value)
            # The first are the prompt's.
            if puts == 1:
                self._tell()
            puts += 1

        streamer.put = watched
        try:
            return self._model.generate(*args, streamer=streamer, **kwargs)
        except Exception as error:
            self.error = error
            raise
        finally:
            self._tell()

    def _tell(self) -> None:
        self._loop.call_soon_threadsafe(self.told.set)


#: Answers that the request under way has begun to stream.
_begun: ContextVar[list[_Beginning] | None] = ContextVar("_begun", default=None)


def prepare() -> None:
    """Change the servers that this process builds."""
    manager: Any = utils.GenerateManager
    for name in ("generate_streaming", "generate_non_streaming"):
        setattr(manager, name, _within_context(getattr(manager, name)))
    manager.generate_streaming = _watched(manager.generate_streaming)
    build = server.build_server

    @wraps(build)
    def built(*args: Any, **kwargs: Any) -> Any:
        for handler in (*args, *kwargs.values()):
            if hasattr(handler, "handle_request"):
                handler.handle_request = partial(_begin, handler.handle_request)
        app = build(*args, **kwargs)
        app.add_exception_handler(DllmError, _ours)
        # What transformers raises where there is no such repository.
        app.add_exception_handler(OSError, _missing)
        return app

    server.build_server = built


def _within_context(generate: Callable[..., Any]) -> Callable[..., Any]:
    """Ask for no more tokens than the model's context has room for."""

    @wraps(generate)
    def within(self: Any, model: Any, processor: Any, inputs: Any, gen_config: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(model, DiffusionModelForCausalLM | TriModeForCausalLM) and gen_config.max_new_tokens is not None:
            spec = getattr(model, "spec", None)
            context = model.config.max_position_embeddings if spec is None else spec.context
            # A prompt that fills the context is refused by the engine, which says why.
            room = max(1, context - inputs["input_ids"].shape[-1])
            gen_config.max_new_tokens = min(gen_config.max_new_tokens, room)
        return generate(self, model, processor, inputs, gen_config, *args, **kwargs)

    return within


def _watched(generate: Callable[..., Any]) -> Callable[..., Any]:
    """Note a stream that begins for whoever answers the request."""

    @wraps(generate)
    def watching(self: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
        begun = _begun.get()
        if begun is not None:
            model = _Beginning(model)
            begun.append(model)
        return generate(self, model, *args, **kwargs)

    return watching


async def _begin(handle: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Answer a request; a stream that fails before its first token has not begun, and is an error like any other."""
    begun: list[_Beginning] = []
    token = _begun.set(begun)
    try:
        answer = await handle(*args, **kwargs)
    finally:
        _begun.reset(token)
    for beginning in begun:
        await beginning.told.wait()
        if beginning.error is not None:
            return _answer(_status(beginning.error), beginning.error)
    return answer


def _status(error: Exception) -> int:
    if isinstance(error, CheckpointError):
        return 404
    return 400 if isinstance(error, OptionError | RequestError) else 500


async def _ours(_request: Any, error: Exception) -> Any:
    return _answer(_status(error), error)


async def _missing(_request: Any, error: Exception) -> Any:
    return _answer(404, error)


def _answer(status: int, error: Exception) -> Any:
    from fastapi.responses import JSONResponse

    kind = "invalid_request_error" if status < 500 else "server_error"
    return JSONResponse({"error": {"message": str(error), "type": kind, "code": status}}, status_code=status)
