"""A graph of this pack's own nodes in API format, changed and exported."""

from __future__ import annotations

import copy

from ...pipeline.graphs import widgets
from ...pipeline.graphs.graph import from_prompt
from ...pipeline.graphs.places import PortableFiles
from ...pipeline.graphs.read import settings_of
from ...pipeline.settings.definition import Settings


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


def graph(nodes=None, **changed):
    """A graph in API format; widgets are changed by name, nodes by id."""
    defaults = Settings()
    shown = {name: widgets.widget_value(name, getattr(defaults, name)) for name in (*widgets.LOADER, *widgets.SAMPLER)}
    shown |= {"dit_path": "base.safetensors", "infinitetalk_dir": "talk.safetensors", "prompt": "p"}
    values = {**shown, widgets.PREFIX: "video/InfiniteTalk", **changed}
    made = {
        "1": node("LoadImage", image="portrait.png"),
        "2": node("LoadAudio", audio="speech.wav"),
        "3": node("InfiniteTalkAudioEncoder", audio=["2", 0], wav2vec_dir="wav2vec"),
        "4": node("InfiniteTalkModelLoader", **{name: values[name] for name in widgets.LOADER}),
        "5": node("InfiniteTalkSampler", model=["4", 0], speech=["3", 0], image=["1", 0])
        | {"inputs": {"model": ["4", 0], "speech": ["3", 0], "image": ["1", 0]}},
    }
    made["5"]["inputs"] |= {name: values[name] for name in (*widgets.SAMPLER, widgets.PREFIX)}
    return copy.deepcopy({**made, **(nodes or {})})


def exported(prompt, files=None, node=None):
    return settings_of(from_prompt(prompt), files or PortableFiles(), node)
