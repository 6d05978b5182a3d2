"""The export node: the graph as an equivalent command. It needs no link, always runs, and never ends a run.

What cannot be exported, for whatever reason, is its text, as a comment for the shell: others may still run.
"""

from __future__ import annotations

import logging

from comfy_api.latest import io, ui

from ..pipeline.errors import InputError, in_short
from ..pipeline.export.command import comment
from .comfy import commands
from .comfy.schema import schema
from .comfy.words import in_comfyui


class InfiniteTalkExport(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="InfiniteTalkExport",
            display_name="Export Command (InfiniteTalk)",
            description="The graph as a command that makes the same frames without ComfyUI. Needs no link; run it "
            "alone or with everything else. What cannot be exported is said in its text, and ends no run.",
            inputs=[
                io.Combo.Input(
                    "shell",
                    options=list(commands.SHELLS),
                    default=commands.default_shell(),
                    tooltip="Where it will run.",
                ),
                io.Boolean.Input(
                    "full", default=False, tooltip="Every setting, not only those that differ from the preset."
                ),
                io.String.Input(
                    "save_file", default="", tooltip="Also save it under this name in ComfyUI's output folder."
                ),
                io.Video.Input("video", optional=True, tooltip="Which sampler is meant, where the graph has several."),
            ],
            outputs=[io.String.Output(display_name="command", tooltip="The command as text.")],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **given: object) -> float:
        return float("nan")  # the whole graph counts, not only what is linked

    @classmethod
    def execute(cls, shell: str, full: bool, save_file: str, video: object = None) -> io.NodeOutput:
        try:
            command, shown = cls._export(shell, full, save_file)
        except InputError as error:
            command = shown = comment(f"No command: {in_comfyui(str(error))}")
        except Exception as error:  # a node of others, a full disk, a fault of ours: the video is made all the same
            logging.exception("InfiniteTalk: no command could be made of the graph")
            command = shown = comment(f"No command: {type(error).__name__}: {in_short(error)}.")
        return io.NodeOutput(command, ui=ui.PreviewText(shown))

    @classmethod
    def _export(cls, shell: str, full: bool, save_file: str) -> tuple[str, str]:
        """The command, and as it is shown: with its notes."""
        graph = cls.hidden.prompt
        link = graph[cls.hidden.unique_id]["inputs"].get("video")
        made = commands.of_graph(graph, shell, full, link and str(link[0]))
        if save_file:
            commands.save(made, save_file)
        return made.text, made.with_notes
