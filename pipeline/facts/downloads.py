"""The commands that fetch the weights of the guide, for sentences about what is missing.

Knows where they are published and into which folders the guide puts them, and nothing about files.
"""

from __future__ import annotations

BASE = "hf download Wan-AI/Wan2.1-I2V-14B-480P --local-dir weights/Wan2.1-I2V-14B-480P"
TOKENIZER = 'hf download Wan-AI/Wan2.1-I2V-14B-480P --include "google/*" --local-dir weights/Wan2.1-I2V-14B-480P'
INFINITETALK = 'hf download MeiGen-AI/InfiniteTalk --include "single/*" --local-dir weights/InfiniteTalk'
SPEECH_ENCODER = "hf download TencentGameMate/chinese-wav2vec2-base --local-dir weights/chinese-wav2vec2-base"
QUANTISED = 'hf download MeiGen-AI/InfiniteTalk --include "quant_models/*" --local-dir weights/InfiniteTalk'
