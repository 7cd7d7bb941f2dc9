"""Which of several processes this is, where a launcher such as accelerate's or torchrun says so."""

import os
from collections.abc import Mapping
from typing import Any


def is_first() -> bool:
    """Whether it is the one of them on this machine that speaks for all."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def own_device(load: Mapping[str, Any]) -> dict[str, str]:
    """The load option that gives each process a device of its own, where there are several and none was chosen."""
    rank = os.environ.get("LOCAL_RANK")
    if rank is None or load.get("device", "auto") != "auto" or load.get("device_map") is not None:
        return {}
    import torch

    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    count = torch.accelerator.device_count() if found is not None else 0
    return {"device": f"{found.type}:{int(rank) % count}"} if found is not None and count > 1 else {}
