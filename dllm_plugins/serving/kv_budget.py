"""How much memory keys and values of a model may take, and what of it requests come to need."""

import logging
from collections.abc import Sequence

from dllm_plugins.denoisers.base import FullDenoiser
from dllm_plugins.denoisers.base import completed
from dllm_plugins.kept_prefixes import KeptPrefix
from dllm_plugins.kept_prefixes import KeptPrefixes
from dllm_plugins.models import Model
from dllm_plugins.request import Request
from dllm_plugins.serving.errors import ApiError
from dllm_plugins.template import Gap

_log = logging.getLogger(__name__)


class KvBudget:
    """The bytes that rows of one model, and prefixes that outlive theirs, may take together.

    A row counts with all that it may come to hold, so that nothing that was taken in has to be given up.

    :param most: None for no bound.
    """

    def __init__(self, model: Model, most: int | None) -> None:
        self._denoiser: FullDenoiser = completed(model.denoiser)
        self._name = model.name
        self.bound(most)

    def bound(self, most: int | None) -> None:
        """Go by another number of bytes from now on; rows that were taken in keep theirs."""
        self._most = most
        if most is not None and self._denoiser.keys_bytes([1]) is None:
            _log.warning("nobody knows what keys and values of %s take; only the number of rows is bounded", self._name)
            self._most = None

    def positions(self, request: Request) -> int:
        """Most positions that a row comes to hold, with what a pass forwards behind its end.

        :raises ApiError: if its keys and values never find room.
        """
        spec, config = self._denoiser.spec, request.config
        room = sum(part.room if isinstance(part, Gap) else len(part) for part in request.template)
        length = len(request.tokens) + len(request.suffix) + (room if request.template else config.max_new_tokens)
        found = min(spec.context, length) + (config.block_length or spec.block_length) + spec.draft_length
        if (error := self.never_holds(found)) is not None:
            raise error
        return found

    def never_holds(self, positions: int) -> ApiError | None:
        """Why a row of so many positions finds no room, even alone; None if it does."""
        most = self._most
        if most is None or (needed := self._bytes([positions])) <= most:
            return None
        return ApiError(
            400,
            f"keys and values of {positions} positions take {in_mebibytes(needed)}, and this server has "
            f"{in_mebibytes(most)} for them; ask for fewer tokens, or shorten the prompt",
            code="kv_memory",
        )

    def holds(self, rows: Sequence[int]) -> bool:
        """Whether rows of so many positions fit."""
        return self._most is None or self._bytes(rows) <= self._most

    def trim(self, prefixes: KeptPrefixes, rows: Sequence[int]) -> None:
        """Drop prefixes that no longer fit beside rows of so many positions."""
        # Bounds change meanwhile, in another thread.
        most = self._most
        if most is not None:
            left = most - self._bytes(rows)
            prefixes.trim(lambda kept: sum(map(self._kept_bytes, kept)) <= left)

    def _bytes(self, rows: Sequence[int]) -> int:
        return self._denoiser.keys_bytes(rows) or 0

    def _kept_bytes(self, kept: KeptPrefix) -> int:
        own: int | None = getattr(kept.state, "nbytes", None)
        return self._bytes([len(kept.tokens)]) if own is None else own


def in_mebibytes(count: int) -> str:
    """A number of bytes, for people."""
    return f"{count / (1 << 20):.1f} MiB"
