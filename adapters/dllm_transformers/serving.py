"""What `serve` of transformers does not do by itself for our models.

Requests that cannot be honoured, and models that are not there, become answers that say so: its own handlers
let them through as "Internal Server Error", with the reason in the log only. And an answer that the
model's context cuts ends by `length`: the server compares its tokens with what was asked for.
"""

from collections.abc import Callable
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


def prepare() -> None:
    """Change the servers that this process builds."""
    manager: Any = utils.GenerateManager
    for name in ("generate_streaming", "generate_non_streaming"):
        setattr(manager, name, _within_context(getattr(manager, name)))
    build = server.build_server

    @wraps(build)
    def built(*args: Any, **kwargs: Any) -> Any:
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


async def _ours(_request: Any, error: Exception) -> Any:
    if isinstance(error, CheckpointError):
        return _answer(404, error)
    return _answer(400 if isinstance(error, OptionError | RequestError) else 500, error)


async def _missing(_request: Any, error: Exception) -> Any:
    return _answer(404, error)


def _answer(status: int, error: Exception) -> Any:
    from fastapi.responses import JSONResponse

    kind = "invalid_request_error" if status < 500 else "server_error"
    return JSONResponse({"error": {"message": str(error), "type": kind, "code": status}}, status_code=status)
