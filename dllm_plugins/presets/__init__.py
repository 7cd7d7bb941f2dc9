"""Named models that answer puzzles: a text that was read by rules of its own goes in, a checked answer comes out.

llm reads this on every call, so it holds names and imports nothing.
"""

SUDOKU, PATH = "dllm-sudoku", "dllm-path"
#: What each shipped one answers, by its name.
SHIPPED = {
    SUDOKU: "4x4 Sudoku: a grid in, the solved grid out",
    PATH: "path finding: edges, a start and a goal in, the path out",
}
#: What the names of such models begin with, so that `llm -m` finds those of plug-ins, too.
PREFIX = "dllm-"
