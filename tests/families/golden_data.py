"""Where the golden data is."""

import os
from pathlib import Path

HERE = Path(__file__).parent
#: A small part of it is in every clone.
PART = HERE / "golden"
#: The whole lies beside a developer's clone.
WHOLE = Path(os.environ.get("DLLM_ORACLE", HERE.parents[2] / "shared" / "oracle"))
FOLDER = WHOLE if WHOLE.is_dir() else PART
