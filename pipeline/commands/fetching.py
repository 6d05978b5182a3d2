"""Files from the hub: what it tells of them, their bytes, and whether these are the right ones; for ``download``.

Bytes go into a folder of their own first, where an interrupted call leaves them and the next one goes on, and get their
name when size and hash are right. huggingface_hub does the fetching, which takes mirrors, tokens and proxies from its
own variables; modelscope.cn is asked by its own package. Both are imported when they are needed. Knows nothing of
presets.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import InputError, in_short
from ..facts.packages import Package
from ..facts.published import HUB, File, Part
from ..facts.sizes import size_text
from ..media.file_lock import try_lock

PARTIAL = ".partial"  # the folder of unfinished files, in the one that they go to
_HUB_PACKAGE, _MODELSCOPE = Package("huggingface_hub", "huggingface_hub"), Package("modelscope", "modelscope", "1.20")
_FULL = errno.ENOSPC, errno.EDQUOT, errno.EFBIG
_DISK = *_FULL, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG
_SHA256, _GIT = 64, 40  # digits of a hash: of a large file, and of a small one as git has it


@dataclass(frozen=True)
class Wanted:
    """A file of a part, and where it goes."""

    part: Part
    file: File
    path: Path


@dataclass(frozen=True)
class Told:
    """What is known of a file before it is fetched.

    Attributes:
        size: bytes; None if nobody tells.
        hash: SHA-256, or SHA-1 as git has it; None if nobody tells.
    """

    size: int | None
    hash: str | None


def endpoint() -> str:
    """The hub's address, or that of a mirror."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or HUB


def ask_hub(wanted: Wanted, trust_hub: bool) -> Told:
    """What the hub tells of a file, beside what the table says.

    Args:
        trust_hub: take the hub's word where the two differ.

    Raises:
        InputError: it cannot be asked, does not give the file, or has another one than the table knows.
    """
    _HUB_PACKAGE.require("download", "a browser: docs/models.md has every address")
    try:
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        url = hf_hub_url(wanted.part.repo, wanted.file.path, endpoint=endpoint())
        found = get_hf_file_metadata(url)
    except Exception as error:  # of any kind: its network library is another in each version
        raise _refused(error, wanted, endpoint()) from error
    table = wanted.file
    if trust_hub:
        return Told(found.size, found.etag)
    for what, ours, theirs in (
        ("size", table.size, found.size),
        ("SHA-256", table.sha256, found.etag if len(found.etag or "") == _SHA256 else None),
    ):
        if ours is not None and theirs is not None and ours != theirs:
            raise InputError(
                f"{url}: its {what} is {theirs}, but that of the file that is known here is {ours}: the publisher has "
                "replaced it, or the mirror has another one. --trust_hub takes it as it is."
            )
    return Told(table.size or found.size, table.sha256 or found.etag)


def told_by_table(wanted: Wanted) -> Told:
    """What is known of a file where nobody is asked."""
    return Told(wanted.file.size, wanted.file.sha256)


def free_space(folder: Path) -> int:
    """Bytes that are free for a folder, which need not be there yet.

    Raises:
        InputError: a file is in its place.
    """
    above = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if not above.is_dir():
        raise InputError(f"--to: {above} is a file; give a folder.")
    return shutil.disk_usage(above).free


def check_disk(folder: Path, needed: int) -> None:
    """See that so many bytes go into a folder, which need not be there yet.

    Raises:
        InputError: they do not.
    """
    staged = sum(file.stat().st_size for file in (folder / PARTIAL).rglob("*") if file.is_file())
    free = free_space(folder)
    if needed - staged > free:
        raise InputError(
            f"{folder}: {size_text(needed - staged)} are to be fetched, but the disk has {size_text(free)} free; make "
            "room, or choose another disk with --to."
        )


def fetch(wanted: Wanted, told: Told, root: Path, modelscope: bool = False) -> None:
    """Fetch a file, see that it is right, and give it its name.

    Args:
        root: the folder in which unfinished files wait.

    Raises:
        InputError: the connection broke, the disk is full, or the bytes are wrong, which are deleted then.
    """
    stage = root / PARTIAL / wanted.part.repo.replace("/", "--")
    try:
        stage.mkdir(parents=True, exist_ok=True)
        staged = (_modelscope_file if modelscope else _hub_file)(wanted, stage)
        _check(staged, wanted, told)
        wanted.path.parent.mkdir(parents=True, exist_ok=True)
        staged.replace(wanted.path)
    except InputError:
        raise
    except Exception as error:  # see ``ask_hub``
        raise _refused(error, wanted, "modelscope.cn" if modelscope else endpoint()) from error


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """While files are fetched into a folder; two at once would spoil each other's unfinished files.

    Raises:
        InputError: another process is at it, or nothing can be written there.
    """
    lock = root / PARTIAL / "lock"
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("ab")
    except OSError as error:
        raise InputError(f"{root} cannot be written ({error.strerror}); choose another folder with --to.") from error
    with file:
        if not try_lock(file):
            raise InputError(f"another download into {root} is running; wait for its end, or stop it.")
        yield
    lock.unlink(missing_ok=True)
    if not any(lock.parent.iterdir()):
        lock.parent.rmdir()


def clear(root: Path, parts: list[Part]) -> None:
    """Take away what fetching these parts left behind, once all of it is done."""
    for part in parts:
        shutil.rmtree(root / PARTIAL / part.repo.replace("/", "--"), ignore_errors=True)


def _hub_file(wanted: Wanted, stage: Path) -> Path:
    """A file's bytes from the hub, after those that an earlier call left. (``hf_hub_download`` begins again.)"""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    url = hf_hub_url(wanted.part.repo, wanted.file.path, endpoint=endpoint())
    found, headers = get_hf_file_metadata(url), build_hf_headers()
    if urlsplit(found.location).netloc != urlsplit(url).netloc:
        headers.pop("authorization", None)  # is for the hub alone
    version = re.sub(r"[^0-9A-Za-z]", "", found.etag or "")[:8]
    staged = stage / f"{wanted.file.path.replace('/', '--')}.{version}"
    with staged.open("r+b" if staged.exists() else "w+b") as file:
        begun = file.seek(0, os.SEEK_END)
        if found.size is None or begun > found.size:
            begun = file.seek(0)
            file.truncate()
        http_get(
            found.location,
            file,
            resume_size=begun,
            headers=headers,
            expected_size=found.size,
            displayed_filename=wanted.file.name,
        )
    return staged


def _modelscope_file(wanted: Wanted, stage: Path) -> Path:
    require_modelscope()
    from modelscope.hub.file_download import model_file_download

    return Path(model_file_download(wanted.part.repo, wanted.file.path, local_dir=str(stage)))


def require_modelscope() -> None:
    """Refuse --modelscope where its package is not installed."""
    _MODELSCOPE.require("--modelscope", "the hub or a mirror of it (HF_ENDPOINT)")


def _check(path: Path, wanted: Wanted, told: Told) -> None:
    """See that the bytes are those that were promised; others are deleted."""
    size = path.stat().st_size
    if told.size is not None and size != told.size:
        path.unlink()
        raise _wrong(wanted, "bytes", str(size), str(told.size))
    if told.hash is not None and len(told.hash) in (_SHA256, _GIT):
        found = hash_of(path, len(told.hash) == _GIT)
        if found != told.hash.lower():
            path.unlink()
            raise _wrong(wanted, "hash", found, told.hash)


def hash_of(path: Path, as_git: bool = False) -> str:
    """SHA-256 of a file, or its SHA-1 as git has it."""
    digest = hashlib.sha1(usedforsecurity=False) if as_git else hashlib.sha256()
    if as_git:
        digest.update(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        while block := file.read(1 << 24):
            digest.update(block)
    return digest.hexdigest()


def _wrong(wanted: Wanted, what: str, found: str, expected: str) -> InputError:
    return InputError(
        f"{wanted.file.path} of {wanted.part.repo}: what came has the {what} {found}, {expected} expected, and is "
        "deleted. Run it again; if it comes again, the mirror has another file: choose another HF_ENDPOINT."
    )


def _refused(error: Exception, wanted: Wanted, where: str) -> InputError:
    """Why a file could not be had from ``where``, in words."""
    if isinstance(error, OSError) and error.errno in _DISK:
        advice = "make room and run it again, it goes on" if error.errno in _FULL else "choose another folder with --to"
        return InputError(f"{wanted.path} cannot be written ({error.strerror}); {advice}.")
    kinds = {kind.__name__ for kind in type(error).__mro__}
    cause = error.__cause__ if "LocalEntryNotFoundError" in kinds and error.__cause__ is not None else error
    status = getattr(getattr(error, "response", None), "status_code", None)
    repo, file = wanted.part.repo, wanted.file.path
    if "OfflineModeIsEnabled" in kinds:
        return InputError("HF_HUB_OFFLINE is set, so nothing is fetched; unset it.")
    if "GatedRepoError" in kinds or status == 403:
        return InputError(
            f"{repo} asks for its terms to be accepted ({status}): do it at {HUB}/{repo}, log in with hf auth login "
            "(or set HF_TOKEN), and run it again."
        )
    if status == 401 or "RepositoryNotFoundError" in kinds:
        return InputError(
            f"{where} has no {repo} for you ({status}): log in with hf auth login if you must, or choose another "
            "HF_ENDPOINT; docs/models.md has every address."
        )
    if status == 404 or "EntryNotFoundError" in kinds and "LocalEntryNotFoundError" not in kinds:
        return InputError(
            f"{repo} has no {file} any more ({where} says 404); look for it at {HUB}/{repo}, and give it by its flag."
        )
    if status is not None:
        return InputError(
            f"{where} answers {status} to {repo}/{file}; run it again later, or choose another HF_ENDPOINT."
        )
    if "FileMetadataError" in kinds:
        return InputError(f"{where} does not answer as the hub does; check HF_ENDPOINT.")
    return InputError(
        f"{where} cannot be reached, or the connection broke ({in_short(cause)}); run it again, it goes on where it "
        "stopped. HF_ENDPOINT names a mirror."
    )
