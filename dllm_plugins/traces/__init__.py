"""What every pass left on the canvas, kept while an answer is decoded, and as one page that replays it."""

from dllm_plugins.traces.frames import Cell
from dllm_plugins.traces.frames import Frame
from dllm_plugins.traces.frames import Trace
from dllm_plugins.traces.page import page
from dllm_plugins.traces.recorder import Recorder

__all__ = ["Cell", "Frame", "Recorder", "Trace", "page"]
