"""Processes of their own that need not import everything again: all are forked from one that has."""

import multiprocessing

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        *("infinitetalk.pipeline.run.generator", "infinitetalk.pipeline.commands.main"),
        *("transformers.models.umt5.modeling_umt5", "transformers.models.wav2vec2.modeling_wav2vec2"),
        *("transformers.models.clip.modeling_clip", "pyloudnorm", "ftfy"),  # which a run would import
    ]
)
