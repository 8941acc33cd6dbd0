"""From the host to the device without waiting."""

from __future__ import annotations

import torch
from torch import Tensor


def on_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on `device`; from the host to CUDA through page-locked memory, behind the work queued there.

    A plain copy would wait for that work. The page-locked copy lives until the device has read it: torch's
    host allocator sees to that. No GPU has run this.
    """
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
