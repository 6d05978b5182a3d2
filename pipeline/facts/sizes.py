"""Units and numbers that several rooms count with."""

from __future__ import annotations

GIB = 2**30
SLOTS = 2  # on the device, for blocks that are copied in
