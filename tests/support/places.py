"""Where the repository keeps what tests read."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ASSETS = ROOT / "assets"
PORTRAIT = ASSETS / "portrait.png"
SPEECH = ASSETS / "speech.wav"
WORKFLOWS = ROOT / "workflows"
DATA = ROOT / "tests" / "data"  # numbers of upstream's and of other packages, and what must not change
GRAPHS = DATA / "graphs"
QUEUED = DATA / "workflows"  # the bundled workflows as the page queues them
