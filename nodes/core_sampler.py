"""The streaming sampler around ComfyUI's own model: the graph's guider, sampler, noise and VAE, window after window.

Takes the place of WanInfiniteTalkToVideo, SamplerCustomAdvanced and VAEDecode for a video of any length. Offered where
ComfyUI has the first of them. What makes a window is in ``comfy.core``; everything after it is the engine's.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import folder_paths
from comfy_api.latest import InputImpl, io, ui
from comfy_execution.utils import get_executing_context

from ..pipeline.errors import InputError
from ..pipeline.graphs.widgets import PREFIX_DEFAULT
from ..pipeline.settings.definition import setting_infos
from .comfy import host
from .comfy.linked import constants_of, graph_tags
from .comfy.results import RESULTS
from .comfy.schema import schema, speaking
from .comfy.sockets import sound_of

if TYPE_CHECKING:
    import torch
    from comfy_api.latest import Input

    from ..pipeline.settings.roles import Json
    from .comfy.core_video import Picture, Screened

_LARGEST = 4096
_MOST_FRAMES = 2**31 - 1
_NOT_DECISIVE = ("filename_prefix",)


class InfiniteTalkCoreSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        infos = setting_infos()
        colours, seams = infos["color_correction_strength"], infos["seam_frames"]
        return schema(
            node_id="InfiniteTalkCoreSampler",
            display_name="Core Sampler (InfiniteTalk)",
            description="Makes a talking video as long as the speech by ComfyUI's own model, sampler and VAE, window "
            "after window. Every finished window is on disk at once; an interrupted run goes on where it stopped when "
            "the same graph is queued again.",
            inputs=[
                io.Guider.Input("guider", optional=True, tooltip="Model, prompts and cfg. Either this, or the three."),
                io.Model.Input(
                    "model", optional=True, tooltip="Wan 2.1 I2V, with any patches; where there is no guider."
                ),
                io.Conditioning.Input("positive", optional=True, tooltip="The prompt, where there is no guider."),
                io.Conditioning.Input("negative", optional=True, tooltip="Left out where cfg is 1."),
                io.ModelPatch.Input("model_patch", tooltip="InfiniteTalk, from Load Model Patch."),
                io.Sampler.Input("sampler", tooltip="From KSamplerSelect or any other."),
                io.Sigmas.Input("sigmas", tooltip="From a scheduler."),
                io.Noise.Input("noise", tooltip="From RandomNoise. Each window takes the next seed."),
                io.Vae.Input("vae", tooltip="Wan 2.1's."),
                io.AudioEncoderOutput.Input("audio_encoder_output_1", tooltip="The speech, encoded by wav2vec2."),
                io.ClipVisionOutput.Input(
                    "clip_vision_output", optional=True, tooltip="What CLIP sees in the picture."
                ),
                io.Image.Input("image", optional=True, tooltip="Portrait of the speaker. Either this or video."),
                io.Video.Input("video", optional=True, tooltip="Video to dub, read by time. Either this or image."),
                io.Audio.Input("audio", optional=True, tooltip="The sound of the finished video. Left out: none."),
                io.Int.Input("width", default=832, min=64, max=_LARGEST, step=16, tooltip="Of the video in pixels."),
                io.Int.Input("height", default=480, min=64, max=_LARGEST, step=16, tooltip="Of the video in pixels."),
                io.Float.Input(
                    "cfg",
                    default=1.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    round=0.01,
                    tooltip="Used where no guider is linked.",
                ),
                io.Float.Input(
                    "audio_scale", default=1.0, min=-10.0, max=10.0, step=0.01, tooltip="How strongly the speech acts."
                ),
                io.Int.Input("length", default=81, min=5, max=1001, step=4, tooltip="Frames of a window; 81 is usual."),
                io.Int.Input(
                    "motion_frame_count",
                    default=9,
                    min=1,
                    max=33,
                    tooltip="Frames at the end of a window that the next one starts from.",
                ),
                io.Int.Input(
                    "max_frame_num",
                    default=0,
                    min=0,
                    max=_MOST_FRAMES,
                    tooltip="Longest video in frames. 0: the speech.",
                ),
                io.Float.Input(
                    "color_correction_strength",
                    default=1.0,
                    min=colours.min,
                    max=colours.max,
                    step=0.01,
                    tooltip="How much colours are pulled to those of the picture; long videos drift without it.",
                ),
                io.Int.Input(
                    "seam_frames",
                    default=0,
                    min=int(seams.min or 0),
                    max=int(seams.max or 32),
                    tooltip="Frames after a seam over which the jump in it is spread.",
                ),
                io.Int.Input("crf", default=18, min=0, max=51, tooltip="x264's constant rate factor; 0 is lossless."),
                io.String.Input(
                    "filename_prefix",
                    default=PREFIX_DEFAULT,
                    tooltip="Folder and beginning of the name, under ComfyUI's output folder.",
                ),
            ],
            outputs=[io.Video.Output(display_name="video", tooltip="The finished video.")],
            hidden=[io.Hidden.prompt, io.Hidden.dynprompt, io.Hidden.unique_id, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **given: object) -> int:
        return RESULTS.fingerprint(constants_of(given))

    @classmethod
    @speaking
    def execute(
        cls,
        model_patch: Any,
        sampler: Any,
        sigmas: torch.Tensor,
        noise: Any,
        vae: Any,
        audio_encoder_output_1: dict[str, Any],
        guider: Any = None,
        model: Any = None,
        positive: list | None = None,
        negative: list | None = None,
        clip_vision_output: Any = None,
        image: torch.Tensor | None = None,
        video: Input.Video | None = None,
        audio: dict | None = None,
        **widgets: Any,
    ) -> io.NodeOutput:
        from ..pipeline.media.fragments import VideoFormat
        from ..pipeline.run.recording import Target
        from .comfy.core_video import CoreVideo, digest_of, footage_of, make_video, settings_of
        from .comfy.core_windows import Linked, Speech, guider_of

        if not hasattr(getattr(model_patch, "model", None), "audio_proj"):
            raise InputError("model_patch: it is not InfiniteTalk's; choose that in Load Model Patch.")
        linked = Linked(
            guider=guider_of(guider, model, positive, negative, widgets["cfg"]),
            sampler=sampler,
            sigmas=sigmas,
            noise=noise,
            model_patch=model_patch,
            vae=vae,
            clip_vision_output=clip_vision_output,
            speech=Speech(audio_encoder_output_1),
            audio_scale=widgets["audio_scale"],
        )
        footage = footage_of(image, video)
        settings = settings_of(widgets)
        size = widgets["height"] // 16 * 16, widgets["width"] // 16 * 16
        sound = None if audio is None else sound_of(audio)
        identity = cls._identity(footage, None if sound is None else sound.digest())
        folder, name, _, subfolder, _ = folder_paths.get_save_image_path(
            widgets["filename_prefix"], folder_paths.get_output_directory()
        )
        path = Path(folder, f"{name}_{digest_of(identity)}.mp4")
        context = get_executing_context()
        progress = host.HostProgress(context and context.node_id, len(sigmas) - 1)
        target = Target(path, VideoFormat(*size, crf=widgets["crf"]), sound, None, graph_tags(cls.hidden))
        make_video(CoreVideo(linked, footage, settings, size, identity), target, progress)
        RESULTS.made(constants_of(widgets), path)
        saved = ui.SavedResult(path.name, subfolder, io.FolderType.output)
        return io.NodeOutput(InputImpl.VideoFromFile(str(path)), ui=ui.PreviewVideo([saved]))

    @classmethod
    def _identity(cls, footage: Picture | Screened, sound: str | None) -> dict[str, Json]:
        """Everything that decides the frames: the graph up to here, files, and what it computes with."""
        from .comfy.origin import origin

        return {
            **origin(cls.hidden.dynprompt, cls.hidden.unique_id, _NOT_DECISIVE),
            **host.computes(),
            "the reference": footage.digest(),
            "the sound": sound,
        }
