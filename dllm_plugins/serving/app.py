"""The application: which address is answered by what."""

import logging
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from contextlib import nullcontext
from functools import partial
from typing import Any

from fastapi import FastAPI
from fastapi import Request
from fastapi import Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from dllm_plugins.errors import DllmError
from dllm_plugins.messages import shown
from dllm_plugins.serving.chat import ChatRequest
from dllm_plugins.serving.chat_answers import ChatAnswers
from dllm_plugins.serving.completion_answers import CompletionAnswers
from dllm_plugins.serving.completions import CompletionRequest
from dllm_plugins.serving.errors import ApiError
from dllm_plugins.serving.errors import told
from dllm_plugins.serving.guard import Guard
from dllm_plugins.serving.invalid import invalid
from dllm_plugins.serving.local_socket import LocalSocket
from dllm_plugins.serving.page import page
from dllm_plugins.serving.response_answers import ResponseAnswers
from dllm_plugins.serving.responses import ResponseRequest
from dllm_plugins.serving.sending import Json
from dllm_plugins.serving.service import Service
from dllm_plugins.serving.settings import ServerSettings
from dllm_plugins.serving.warm import Desk

_log = logging.getLogger(__name__)
#: What figures call addresses.
_ENDPOINTS = {"/v1/chat/completions": "chat", "/v1/completions": "completions", "/v1/responses": "responses"}


def create_app(settings: ServerSettings, local: LocalSocket | None = None, guarded: bool = True) -> FastAPI:
    """A server for these models. Its `state.service` can be stopped.

    :param local: where hosts of this user find it, besides.
    :param guarded: whether a :class:`Guard` stands before it.
    """
    service = Service(settings)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[None, None]:
        try:
            async with nullcontext() if local is None else Desk(service).at(local.socket):
                yield
        finally:
            if local is not None:
                # A signal may end the process before anybody else could do it.
                local.close()
            await service.models.close()

    # Pages of documentation would load scripts from elsewhere.
    app = FastAPI(title="dllm-plugins", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.service = service
    if guarded:
        app.add_middleware(Guard, settings=settings)
    app.add_exception_handler(DllmError, partial(_refused, service))
    app.add_exception_handler(RequestValidationError, partial(_refused, service))
    app.add_exception_handler(HTTPException, partial(_refused, service))
    app.add_exception_handler(Exception, partial(_refused, service))
    _add_routes(app, service)
    return app


def _add_routes(app: FastAPI, service: Service) -> None:
    began = int(time.time())

    @app.post("/v1/chat/completions", response_model=None)
    async def chat(wanted: ChatRequest, request: Request) -> Response:
        """Answer a chat."""
        return await service.answer("chat", wanted, request, partial(ChatAnswers, wanted))

    @app.post("/v1/completions", response_model=None)
    async def completions(wanted: CompletionRequest, request: Request) -> Response:
        """Go on from a text, or fill its gap."""
        return await service.answer("completions", wanted, request, partial(CompletionAnswers, wanted))

    @app.post("/v1/responses", response_model=None)
    async def responses(wanted: ResponseRequest, request: Request) -> Response:
        """Answer, in the form of the newest interface."""
        return await service.answer("responses", wanted, request, partial(ResponseAnswers, wanted))

    @app.get("/", response_model=None, include_in_schema=False)
    async def root() -> Response:
        """A page to chat with."""
        return page()

    @app.get("/v1/models", response_model=None)
    async def models() -> Response:
        """The models that are served."""
        return Json({"object": "list", "data": [_described(name, began) for name in service.settings.models]})

    @app.get("/v1/models/{name:path}", response_model=None)
    async def model(name: str) -> Response:
        """One of them."""
        service.models.check(name)
        return Json(_described(name, began))

    @app.get("/health", response_model=None)
    async def health() -> Response:
        """Whether requests are taken."""
        return Json({"status": "stopping" if service.stopping else "ok"}, 503 if service.stopping else 200)

    @app.get("/metrics", response_model=None)
    async def metrics() -> Response:
        """Figures for Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _described(name: str, began: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": began, "owned_by": "dllm-plugins"}


async def _refused(service: Service, request: Request, error: Exception) -> Response:
    """Any error, in OpenAI's shape."""
    if isinstance(error, RequestValidationError):
        failure = invalid(error.errors())
    elif isinstance(error, HTTPException):
        failure = _of_http(error, request.url.path)
    else:
        failure = told(error)
        if failure.status == 500:
            _log.error("%s failed", request.url.path, exc_info=error)
    service.metrics.answered(_ENDPOINTS.get(request.url.path, "other"), "", failure.status)
    return Json(failure.body(), failure.status, failure.headers)


def _of_http(error: HTTPException, path: str) -> ApiError:
    if error.status_code == 400:
        return ApiError(400, "the body is no JSON in UTF-8, or nested too deeply")
    name = path if len(path) <= 80 else shown(path)
    return ApiError(error.status_code, f"{name}: {error.detail}", code="not_found", headers=error.headers)
