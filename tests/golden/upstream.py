"""Import a clone of MeiGen-AI/InfiniteTalk on a machine without a GPU and run it exactly, in fp32.

Upstream imports CUDA-only or heavy packages at module level. Those that the numbers do not need
become empty stand-ins; the attention kernels become PyTorch's scaled dot product attention in the
dtype of the input, since upstream's own wrapper rounds to bfloat16. Everything else is upstream's
code as it is. This module does not know what is computed with it.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import importlib.util
import inspect
import logging
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import av
import numpy as np
import torch
import torch.nn.functional as F

STUBS = (
    "decord",
    "kokoro",
    "xformers",
    "xformers.ops",
    "xfuser",
    "xfuser.core",
    "xfuser.core.distributed",
    "xfuser.core.long_ctx_attention",
)
STUBS_IF_MISSING = (
    "accelerate",
    "cv2",
    "imageio",
    "librosa",
    "loguru",
    "moviepy",
    "moviepy.editor",
    "optimum",
    "optimum.quanto",
    "optimum.quanto.nn",
    "optimum.quanto.nn.qlinear",
    "pyloudnorm",
    "scenedetect",
    "soundfile",
)
ABSENT = ("flash_attn", "flash_attn_interface", "sageattention")
OWN_PACKAGES = ("wan", "src", "generate_infinitetalk")


@contextlib.contextmanager
def import_upstream(path: Path, on_cuda: bool = False) -> Iterator[None]:
    """Make ``import wan``, ``import src`` and ``import generate_infinitetalk`` find the clone at ``path``.

    Use it as ``with import_upstream(path): from wan.modules.vae import WanVAE_``. Inside, CUDA's
    housekeeping calls and autocast do nothing and ``torch.compile`` returns its argument, unless
    ``on_cuda`` leaves torch as it is (to time upstream on a card). On exit
    ``sys.path``, ``torch`` and the stand-ins are put back, and upstream's modules are forgotten.

    Raises:
        FileNotFoundError: ``path`` holds no clone of upstream.
    """
    if not (path / "wan" / "multitalk.py").is_file():
        raise FileNotFoundError(f"{path} is not a clone of MeiGen-AI/InfiniteTalk: it has no wan/multitalk.py")
    # These probe their optional dependencies while they are imported, which must not see a stand-in.
    importlib.import_module("diffusers.models.modeling_utils")
    importlib.import_module("transformers").Wav2Vec2Model  # noqa: B018  a lazy attribute: reading it imports
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        for name, value in [] if on_cuda else _torch_without_cuda():
            stack.enter_context(mock.patch(name, value))
        stack.enter_context(mock.patch.object(inspect, "ArgSpec", inspect.FullArgSpec, create=True))
        stack.enter_context(mock.patch.object(sys, "path", [str(path), *sys.path]))
        stack.enter_context(_stand_ins())
        wan = importlib.import_module("wan.multitalk")
        _rebind("flash_attention", _attention)
        _rebind("get_video_codec", _video_codec)
        _check_origin(wan, path)
        yield


@contextlib.contextmanager
def _stand_ins() -> Iterator[None]:
    """Put the stand-ins into ``sys.modules``; on exit restore what was there and drop upstream's modules."""
    missing = [name for name in STUBS_IF_MISSING if not _installed(name)]
    replaced = {name: _stub(name) for name in (*STUBS, *missing)} | dict.fromkeys(ABSENT)
    replaced["xformers.ops"].memory_efficient_attention = _memory_efficient_attention
    replaced["decord"].VideoReader = _VideoReader
    replaced["decord"].cpu = lambda index: None
    if "loguru" in replaced:
        replaced["loguru"].logger = logging.getLogger("upstream")
    for name, module in replaced.items():
        parent, _, leaf = name.rpartition(".")
        if parent in replaced:
            setattr(replaced[parent], leaf, module)
    before = {name: sys.modules.get(name, ...) for name in replaced}
    sys.modules.update(replaced)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is ...:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module
        for name in [name for name in sys.modules if name.split(".")[0] in OWN_PACKAGES]:
            del sys.modules[name]


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _stub(name: str) -> types.ModuleType:
    """An importable module, any attribute of which is an empty class."""
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
    module.__path__ = []

    def attribute(leaf: str) -> type:
        if leaf.startswith("__"):
            raise AttributeError(leaf)
        return type(leaf, (), {})

    module.__getattr__ = attribute
    return module


def _torch_without_cuda() -> list[tuple[str, object]]:
    class NoAutocast(contextlib.ContextDecorator):
        def __init__(self, *args: object, **kwargs: object) -> None:
            pass

        def __enter__(self) -> None:
            pass

        def __exit__(self, *error: object) -> None:
            pass

    def nothing(*args: object, **kwargs: object) -> None:
        pass

    return [
        ("torch.cuda.amp.autocast", NoAutocast),
        ("torch.cuda.current_device", lambda: "cpu"),
        ("torch.cuda.empty_cache", nothing),
        ("torch.cuda.ipc_collect", nothing),
        ("torch.cuda.manual_seed_all", nothing),
        ("torch.cuda.synchronize", nothing),
        ("torch.compile", lambda function, **options: function),
    ]


def _rebind(name: str, function: object) -> None:
    """Replace a function of upstream everywhere that it has been imported to."""
    for module_name, module in list(sys.modules.items()):
        if module_name.split(".")[0] in OWN_PACKAGES and name in vars(module):
            setattr(module, name, function)


def _check_origin(module: types.ModuleType, path: Path) -> None:
    if not Path(module.__file__).resolve().is_relative_to(path.resolve()):
        raise ImportError(f"'import wan' found {module.__file__}, not the clone at {path}")


def _attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, k_lens: torch.Tensor | None = None, **options: object
) -> torch.Tensor:
    """Attention of [batch, tokens, heads, channels]; keys past ``k_lens`` [batch] are masked."""
    mask = None
    if k_lens is not None:
        mask = (torch.arange(k.size(1)) < k_lens[:, None])[:, None, None]
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k.to(q.dtype), v.to(q.dtype), attn_mask=mask).transpose(1, 2)


def _memory_efficient_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, attn_bias: None = None, op: None = None
) -> torch.Tensor:
    if attn_bias is not None:
        raise NotImplementedError("attention bias is used by upstream only on several GPUs")
    return _attention(q, k, v)


class _VideoReader:
    """The part of decord's VideoReader that upstream uses, by PyAV (the same swscale conversion to RGB)."""

    def __init__(self, path: str, ctx: None = None) -> None:
        with av.open(path) as container:
            self._frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        self._num_frame = len(self._frames)

    def __getitem__(self, index: int) -> types.SimpleNamespace:
        frame: np.ndarray = self._frames[index]
        return types.SimpleNamespace(asnumpy=lambda: frame)


def _video_codec(path: str) -> str:
    """As upstream's, which asks ffprobe; a picture has the codec of its format ("png", "mjpeg")."""
    with av.open(path) as container:
        return container.streams.video[0].codec_context.name
