"""The models of a server: loaded when they are asked for, dropped when nobody uses them and their memory is wanted."""

import asyncio
import gc
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from dllm_plugins.errors import DllmError
from dllm_plugins.libraries.collecting import uncollected
from dllm_plugins.serving.errors import ApiError
from dllm_plugins.serving.estimate import before_loading
from dllm_plugins.serving.fitting import Stamp
from dllm_plugins.serving.fitting import stamp_of
from dllm_plugins.serving.kv_budget import in_mebibytes
from dllm_plugins.serving.metrics import Metrics
from dllm_plugins.serving.scheduling import Scheduler
from dllm_plugins.serving.settings import Loading
from dllm_plugins.serving.settings import ServerSettings
from dllm_plugins.serving.weight import weight_of
from dllm_plugins.sharing import SharedModel
from dllm_plugins.sharing import shared_model

_log = logging.getLogger(__name__)
#: Seconds that a request waits for memory which models in use take.
_PATIENCE = 60.0


class _Hosted:
    """One model, loaded or not.

    :param loading: how it is loaded.
    :param users: requests that use it, or wait until it is there.
    :param size: bytes of its weights; None where nobody knows before it is loaded.
    :param stamp: of its files when they were read.
    """

    def __init__(self, name: str, loading: Loading) -> None:
        self.name = name
        self.loading = loading
        self.users = 0
        self.used = 0.0
        self.size: int | None = None
        self.stamp: Stamp = ()
        self.task: asyncio.Task[Scheduler] | None = None
        self.idle: asyncio.TimerHandle | None = None

    @property
    def there(self) -> Scheduler | None:
        """Its scheduler, if it is loaded."""
        ready = self.task is not None and self.task.done() and not self.task.cancelled()
        return self.task.result() if ready and self.task is not None and self.task.exception() is None else None


class Models:
    """All models of a server; of one event loop."""

    def __init__(self, settings: ServerSettings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._hosted = {name: _Hosted(name, loading) for name, loading in settings.models.items()}
        # One is loaded at a time, so that memory is promised once.
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()
        self._dropping = set[asyncio.Task[None]]()

    @property
    def busy(self) -> int:
        """Answers that wait or are being written."""
        return sum(found.busy for found in self._there())

    def check(self, name: str) -> None:
        """Refuse a model that is not served.

        :raises ApiError: naming those that are.
        """
        if name not in self._hosted:
            known = ", ".join(self._hosted)
            raise ApiError(
                404, f"there is no model {name!r} here; there are: {known}", param="model", code="model_not_found"
            )

    def changed(self, name: str) -> bool:
        """Whether the files of a model are not what they were when it was loaded."""
        hosted = self._hosted[name]
        return hosted.there is not None and hosted.stamp != stamp_of(hosted.loading)

    def bound(self, settings: ServerSettings) -> None:
        """Go by other bounds; the models stay."""
        self._settings = settings
        for found in self._there():
            found.bound(settings)

    @asynccontextmanager
    async def using(self, name: str) -> AsyncGenerator[Scheduler, None]:
        """A model, loaded if it is not there, and kept for as long as it is used.

        :raises ApiError: if there is none of that name, or no memory for it.
        :raises DllmError: if it cannot be loaded.
        """
        self.check(name)
        hosted = self._hosted[name]
        hosted.users += 1
        if hosted.idle is not None:
            hosted.idle.cancel()
        try:
            if hosted.task is None:
                hosted.task = asyncio.create_task(self._load(hosted))
                hosted.task.add_done_callback(lambda task: self._loaded(hosted, task))
            # Whoever leaves meanwhile does not end the loading, which others wait for.
            yield await asyncio.shield(hosted.task)
        finally:
            self._unused(hosted)

    def cut(self, error: DllmError) -> int:
        """End all answers by an error; how many there were."""
        return sum(found.cut(error) for found in self._there())

    async def close(self) -> None:
        """Drop all models, whatever they are at."""
        for hosted in self._hosted.values():
            if hosted.idle is not None:
                hosted.idle.cancel()
            await self._drop(hosted)
        await asyncio.gather(*self._dropping, return_exceptions=True)

    def _there(self) -> list[Scheduler]:
        return [found for hosted in self._hosted.values() if (found := hosted.there) is not None]

    def _unused(self, hosted: _Hosted) -> None:
        loop = asyncio.get_running_loop()
        hosted.users -= 1
        hosted.used = loop.time()
        self._freed.set()
        if hosted.users == 0 and self._settings.idle is not None:
            hosted.idle = loop.call_later(self._settings.idle, self._drop_idle, hosted)

    def _drop_idle(self, hosted: _Hosted) -> None:
        if hosted.users == 0 and hosted.there is not None:
            task = asyncio.create_task(self._drop(hosted))
            self._dropping.add(task)
            task.add_done_callback(self._dropping.discard)

    async def _load(self, hosted: _Hosted) -> Scheduler:
        async with self._turn:
            hosted.stamp = await asyncio.to_thread(stamp_of, hosted.loading)
            if self._settings.memory is not None and hosted.size is None:
                hosted.size = await asyncio.to_thread(before_loading, hosted.loading)
                if hosted.size is None:
                    _log.warning("nobody knows how large %s is before it is loaded, so it is loaded alone", hosted.name)
            await self._make_room(hosted)
            shared, size = await asyncio.to_thread(_load_now, hosted.loading)
            hosted.size = max(hosted.size or 0, size)
            # It may have turned out larger than its files.
            try:
                await self._make_room(hosted, wait=False)
            except ApiError:
                del shared
                await asyncio.to_thread(gc.collect)
                raise
            _log.info("loaded %s, %s", hosted.name, in_mebibytes(hosted.size))
            return Scheduler(hosted.name, shared, self._settings, self._metrics)

    def _loaded(self, hosted: _Hosted, task: "asyncio.Task[Scheduler]") -> None:
        """It is there, or the next request tries again."""
        if task.cancelled() or task.exception() is not None:
            hosted.task = None
        else:
            self._metrics.loaded(hosted.name, hosted.size or 0)

    async def _make_room(self, wanted: _Hosted, wait: bool = True) -> None:
        """Drop models that nobody uses until there is room for another one; if need be, wait for them.

        :raises ApiError: if it is larger than all the room there is, and if others are in use for too long.
        """
        budget = self._settings.memory
        if budget is None:
            return
        # One of unknown size needs all of it.
        size = budget if wanted.size is None else wanted.size
        if size > budget:
            raise ApiError(
                400,
                f"the weights of model {wanted.name!r} take {in_mebibytes(size)}, and this server has "
                f"--memory {in_mebibytes(budget)} for models; serve it with more, or ask for a smaller model",
                param="model",
                code="model_too_large",
            )
        try:
            async with asyncio.timeout(_PATIENCE):
                while True:
                    others = [hosted for hosted in self._hosted.values() if hosted.there is not None]
                    if size + sum(hosted.size or 0 for hosted in others) <= budget:
                        return
                    unused = [hosted for hosted in others if hosted.users == 0]
                    if unused:
                        await self._drop(min(unused, key=lambda hosted: hosted.used))
                    elif not wait:
                        return
                    else:
                        self._freed.clear()
                        await self._freed.wait()
        except TimeoutError:
            raise ApiError(
                503,
                f"model {wanted.name!r} waits for memory that models in use take; ask again later",
                code="no_memory",
                headers={"Retry-After": str(int(_PATIENCE))},
            ) from None

    async def _drop(self, hosted: _Hosted) -> None:
        scheduler, task = hosted.there, hosted.task
        hosted.task = None
        if scheduler is None:
            if task is not None:
                task.cancel()
            return
        await scheduler.close()
        del scheduler, task
        await asyncio.to_thread(gc.collect)
        self._metrics.loaded(hosted.name, 0)
        _log.info("dropped %s", hosted.name)


def _load_now(loading: Loading) -> tuple[SharedModel, int]:
    """In a thread: the model, and the bytes of its weights."""
    with uncollected():
        shared = shared_model(loading.place, **loading.options)
        return shared, weight_of(shared.model.denoiser)
