"""The streaming sampler node: a picture or a video and speech into a talking video on disk, window by window.

The video lies under ComfyUI's output folder from the first window on and carries what decides its frames: queued
again, an unfinished one is gone on with, and a finished one is there already.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import folder_paths
from comfy_api.latest import InputImpl, io, ui
from comfy_execution.utils import get_executing_context

from ..pipeline.errors import InputError
from ..pipeline.graphs.widgets import NUMBERS, SIDE_PLACES, TEXTS, ruled_by_sampler, setting_values
from ..pipeline.settings.definition import Settings
from ..pipeline.settings.presets import Preset
from ..pipeline.settings.roles import Node
from ..pipeline.settings.validation import resolve, steps_taken
from .comfy import host, inputs, videos
from .comfy.files import FILES
from .comfy.linked import constants_of, graph_tags, reference_of
from .comfy.results import RESULTS
from .comfy.schema import misfit, schema, speaking
from .comfy.slot import SLOT
from .comfy.sockets import ModelChoice, ModelSocket, PresetSocket, Speech, SpeechSocket

if TYPE_CHECKING:
    import torch
    from comfy_api.latest import Input

    from ..pipeline.job.job import Job


class InfiniteTalkSampler(io.ComfyNode):
    def __init__(self) -> None:
        super().__init__()
        SLOT.hold(self)

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="InfiniteTalkSampler",
            display_name="Streaming Sampler (InfiniteTalk)",
            description="Makes a talking video as long as the speech. Every finished window is on disk at once; an "
            "interrupted run goes on where it stopped when the same graph is queued again.",
            inputs=[
                ModelSocket.Input("model", tooltip="From the model loader."),
                SpeechSocket.Input("speech", tooltip="From the audio encoder."),
                io.Image.Input("image", optional=True, tooltip="Portrait of the speaker. Either this or video."),
                io.Video.Input("video", optional=True, tooltip="Video to dub, read by time. Either this or image."),
                PresetSocket.Input("preset", optional=True, tooltip="Rules the settings that it names."),
                *inputs.widgets(Node.SAMPLER),
            ],
            outputs=[io.Video.Output(display_name="video", tooltip="The finished video, with its sound.")],
            hidden=[io.Hidden.prompt, io.Hidden.dynprompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **given: object) -> int:
        return RESULTS.fingerprint(constants_of(given))

    @classmethod
    def validate_inputs(cls, size: str | None = None, input_types: Mapping[str, str] | None = None) -> bool | str:
        """Any text may be the size: earlier versions had that, in graphs and behind links. A run judges it."""
        return misfit(cls, input_types or {}, {"size": "STRING"}) or True

    @classmethod
    @speaking
    def execute(
        cls,
        model: ModelChoice,
        speech: Speech,
        filename_prefix: str,
        image: torch.Tensor | None = None,
        video: Input.Video | None = None,
        preset: Preset | None = None,
        **widgets: object,
    ) -> io.NodeOutput:
        from ..pipeline.job.job import Job

        settings = cls._settings(model, speech, preset, widgets)
        texts = {name: str(widgets[name]) for name in TEXTS}
        job = Job(reference_of(image, video), speech.encoded, texts["prompt"], texts["negative_prompt"])
        output = Path(folder_paths.get_output_directory())
        folder, name, number, _, _ = folder_paths.get_save_image_path(filename_prefix, str(output))
        place = Place(output, Path(folder, name), number)
        context = get_executing_context()
        progress = host.HostProgress(context and context.node_id, len(steps_taken(settings)))
        if image is not None and image.shape[0] > 1:
            progress.warn(f"image: {image.shape[0]} pictures are linked; the first one is the speaker's.")
        path = make_video(settings, job, place, progress, graph_tags(cls.hidden))
        RESULTS.made(constants_of({**widgets, "filename_prefix": filename_prefix}), path)
        subfolder = path.parent.relative_to(output)
        saved = ui.SavedResult(path.name, "" if subfolder == Path() else str(subfolder), io.FolderType.output)
        return io.NodeOutput(InputImpl.VideoFromFile(str(path)), ui=ui.PreviewVideo([saved]))

    @classmethod
    def _settings(cls, model: ModelChoice, speech: Speech, preset: Preset | None, widgets: dict) -> Settings:
        chosen = {name: widgets[name] for name in (*NUMBERS, *SIDE_PLACES) if name in widgets}
        values = setting_values(chosen, FILES)
        linked = model.preset, None if preset is None else preset.name
        names = {name for name in linked if name is not None}
        if len(names) > 1:
            raise InputError(f"loader and sampler are linked to different presets ({', '.join(sorted(names))}).")
        if preset is not None:
            values |= ruled_by_sampler(preset, inputs.linked_now(cls.hidden.dynprompt))
        values |= {**model.settings, "wav2vec_dir": speech.wav2vec_dir, "device": host.device()}
        return resolve(Settings.of(values))


@dataclass(frozen=True)
class Place:
    """Where a video goes.

    Attributes:
        output: ComfyUI's output folder, in which all are.
        stem: folder and beginning of the name; ``_00001_.mp4`` follows.
        number: the next one that is free.
    """

    output: Path
    stem: Path
    number: int

    def next(self) -> Path:
        return self.stem.with_name(f"{self.stem.name}_{self.number:05}_.mp4")


def make_video(settings: Settings, job: Job, place: Place, progress: host.HostProgress, tags: dict[str, str]) -> Path:
    """Make a video under the next free number, go on with it where it was interrupted, or find it finished."""
    from ..pipeline.models.speech import EncodedSpeech
    from ..pipeline.run.generator import memory_errors

    with host.guest(), memory_errors():
        generator = SLOT.get(settings, host.make_room)
        run = videos.digest_of(generator.identity(job, settings))
        done = videos.finished(place.stem, run)
        if done is not None:
            progress.note(f"{done.name} is finished already")
            return done
        path = videos.begun(place.output, run) or place.next()
        anew = _is_state_damaged(path, progress)
        generator.progress = progress
        settings = settings.replace(resume=not anew, overwrite=anew)
        try:
            return generator.save(job, path, settings, {**tags, videos.RUN_TAG: run})
        finally:
            if isinstance(job.speech, EncodedSpeech):
                job.speech.move_to("cpu")
            generator.release()


def _is_state_damaged(path: Path, progress: host.HostProgress) -> bool:
    """Whether there is an unfinished run that cannot be gone on with, and is begun anew."""
    from ..pipeline.run.resume import load_state

    try:
        load_state(path)
    except InputError as error:
        logging.warning("InfiniteTalk: %s", error)
        progress.note("the unfinished video cannot be gone on with; it is made anew")
        return True
    return False
