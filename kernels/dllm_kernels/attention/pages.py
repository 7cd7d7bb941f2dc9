"""Keys and values of all rows in one pool of pages, whose addresses stay while rows grow.

A captured pass knows addresses, not lengths: a row that grows takes pages and moves
nothing. Only when the pool itself grows does everything move, and its `version` says so.
A pass writes right behind what a row keeps, over what the pass before left there.

Which pages are taken is said by the rows alone, so that nothing can be lost or given out twice
by what comes in between (an interrupt, a row that is dropped in another thread).
"""

from collections.abc import Sequence
from weakref import ReferenceType
from weakref import ref

import torch
from torch import Tensor

from dllm_kernels.marks import Marks

#: Slots of a page: whole tiles of keys of any implementation.
PAGE = 64
#: Pages of a new pool. Page 0 belongs to nobody: keys that nobody wants are written there.
FIRST = 33


class PagePool:
    """Keys and values of `layers` layers, `data` [2, layers, pages, PAGE, kv_heads, head_dim].

    Not thread-safe; but rows may be dropped in any thread.
    """

    def __init__(self, layers: int, kv_heads: int, head_dim: int, dtype: torch.dtype, device: torch.device) -> None:
        data = torch.zeros(2, layers, FIRST, PAGE, kv_heads, head_dim, dtype=dtype, device=device)
        # Both in one: a recording of another version must not be played on these data.
        self._stored = (data, 0)
        self._rows: list[ReferenceType[PagedRow]] = []

    @property
    def data(self) -> Tensor:
        """See above; another tensor once the pool has grown."""
        return self._stored[0]

    @property
    def version(self) -> int:
        """Changes when `data` moves."""
        return self._stored[1]

    @property
    def free(self) -> int:
        """Pages that no row has."""
        return len(self._unused())

    def _unused(self) -> list[int]:
        used = {page for note in self._rows if (row := note()) is not None for page in row.pages}
        return [page for page in range(1, self.data.shape[2]) if page not in used]

    def add(self, row: "PagedRow") -> None:
        """A row that will take pages."""
        self._rows = [*(note for note in self._rows if note() is not None), ref(row)]

    @property
    def page_bytes(self) -> int:
        """Memory of a page."""
        return self.data.nbytes // self.data.shape[2]

    @torch.inference_mode()
    def take(self, row: "PagedRow", count: int) -> None:
        """So many pages more for a row, until it is dropped."""
        unused = self._unused()
        missing = count - len(unused)
        if missing > 0:
            pages = self.data.shape[2]
            more = max(missing, pages // 2)
            grown = self.data.new_zeros(*self.data.shape[:2], pages + more, *self.data.shape[3:])
            grown[:, :, :pages] = self.data
            self._stored = (grown, self.version + 1)
            unused += range(pages, pages + more)
        row.pages += unused[:count]

    def layer(self, index: int) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer, [pages, PAGE, kv_heads, head_dim] each."""
        keys, values = self.data[:, index]
        return keys, values

    @torch.inference_mode()
    def move(self, source: Tensor, target: Tensor) -> None:
        """Copy slots, int64 [n] numbers over all pages, in all layers; they may overlap."""
        slots, device = self.data.flatten(2, 3), self.data.device
        slots[:, :, target.to(device)] = slots[:, :, source.to(device)]


class PagedRow(Marks):
    """One row's part of a pool: a :class:`~dllm_kernels.decoder.base.Store`.

    Its pages are free again when nobody holds the row any more.

    :ivar pages: in order.
    """

    def __init__(self, pool: PagePool) -> None:
        super().__init__()
        self.pool = pool
        self.pages: list[int] = []
        pool.add(self)

    @property
    def capacity(self) -> int:
        """Positions there is room for, kept ones included."""
        return len(self.pages) * PAGE

    @property
    def nbytes(self) -> int:
        """Memory of its pages."""
        return len(self.pages) * self.pool.page_bytes

    def room(self, positions: int) -> int:
        """The most positions there is room for once it has held so many, beside the pages that a pool begins with.

        A pool grows by half of itself at least.
        """
        return -(-3 * positions // (2 * PAGE)) * PAGE

    def reserve(self, rows: int) -> None:
        """Make room for `rows` positions behind what is kept."""
        missing = -(-(self.kept + rows) // PAGE) - len(self.pages)
        if missing > 0:
            self.pool.take(self, missing)

    def slots(self, places: Tensor) -> Tensor:
        """Where in the pool the places int64 [n] of this row are, int64 [n]."""
        return torch.tensor(self.pages, dtype=torch.int64)[places // PAGE] * PAGE + places % PAGE

    def copy(self, length: int) -> "PagedRow":
        """A row of its own that holds the first `length` positions of this prefix.

        :raises KernelError: if fewer are frozen.
        """
        self._refuse_more_than_frozen(length)
        made = PagedRow(self.pool)
        made.reserve(length)
        places = torch.arange(length)
        self.pool.move(self.slots(places), made.slots(places))
        made.length = length
        return made

    def _move(self, places: Sequence[int]) -> None:
        target = torch.arange(self.length, self.length + len(places))
        self.pool.move(self.slots(torch.tensor(places, dtype=torch.int64)), self.slots(target))
