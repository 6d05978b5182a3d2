"""The export node: the graph as an equivalent command. It needs no link and always runs."""

from __future__ import annotations

from comfy_api.latest import io, ui

from .comfy import commands


class InfiniteTalkExport(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="InfiniteTalkExport",
            display_name="Export Command (InfiniteTalk)",
            category="InfiniteTalk",
            description="The graph as a command that makes the same frames without ComfyUI. Needs no link; run it "
            "alone or with everything else.",
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
        graph = cls.hidden.prompt
        link = graph[cls.hidden.unique_id]["inputs"].get("video")
        command = commands.of_graph(graph, shell, full, link and str(link[0]))
        if save_file:
            commands.save(command, save_file)
        return io.NodeOutput(command.text, ui=ui.PreviewText(command.with_notes))
