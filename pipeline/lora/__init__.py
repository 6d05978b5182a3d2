"""LoRA files of every publisher: what they change, as differences of the model's own parameters."""

from .changes import is_lora
from .loras import Loras, open_loras
from .summary import lora_summary

__all__ = ["Loras", "is_lora", "lora_summary", "open_loras"]
