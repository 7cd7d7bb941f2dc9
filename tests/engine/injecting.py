"""Exceptions that arrive from outside, at a chosen place: what Ctrl-C does at random, one place after the other."""

import sys
from collections.abc import Callable
from types import FrameType
from types import ModuleType
from typing import Any


class Injector:
    """Raises once, right before the `position`-th line (or instruction) that runs in some modules; a context manager.

    :param position: counted from 1.
    :param opcodes: count instructions, not lines.
    :param raised: whether it came so far.
    """

    def __init__(
        self,
        position: int,
        *modules: ModuleType,
        opcodes: bool = False,
        error: Callable[[], BaseException] = KeyboardInterrupt,
    ) -> None:
        self.position = position
        self.raised = False
        self.where = ""
        self._files = {module.__file__ for module in modules}
        self._event = "opcode" if opcodes else "line"
        self._error = error
        self._seen = 0
        self._before: Any = None

    def __enter__(self) -> "Injector":
        self._before = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code.co_filename not in self._files or self.raised:
            return None
        frame.f_trace_opcodes = self._event == "opcode"
        if event == self._event:
            self._seen += 1
            if self._seen == self.position:
                self.raised, self.where = True, f"{frame.f_code.co_qualname}:{frame.f_lineno}"
                raise self._error()
        return self._trace
