"""Names and locks: nothing of others is replaced, whatever the file system can do."""

import errno
import os
from pathlib import Path

import pytest
from infinitetalk.pipeline.media import publishing
from infinitetalk.pipeline.media.publishing import open_locked, publish


def no_links(*_):
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


@pytest.fixture(params=["links", "none"])
def made(tmp_path, request, monkeypatch):
    if request.param == "none":
        monkeypatch.setattr(Path, "hardlink_to", no_links)
    (tmp_path / "made").write_bytes(b"new")
    return tmp_path / "made"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_free_name_is_given(made):
    assert publish(made, made.with_name("name"), replace=False)
    assert contents(made.parent) == {"name": b"new"}


def test_a_file_that_is_there_stays(made):
    made.with_name("name").write_bytes(b"old")
    assert not publish(made, made.with_name("name"), replace=False)
    assert contents(made.parent) == {"made": b"new", "name": b"old"}
    assert publish(made, made.with_name("name"), replace=True)
    assert contents(made.parent) == {"name": b"new"}


def test_where_a_link_leads_stays(made):
    made.with_name("target").write_bytes(b"old")
    made.with_name("name").symlink_to(made.with_name("target"))
    assert not publish(made, made.with_name("name"), replace=False)
    assert publish(made, made.with_name("name"), replace=True)
    assert contents(made.parent) == {"name": b"new", "target": b"old"}


def test_the_lock_is_on_the_file_that_has_the_name(tmp_path, monkeypatch):
    path, lock, replaced = tmp_path / "file", publishing.try_lock, []
    path.write_bytes(b"old")

    def replace_before(file):
        if not replaced:
            replaced.append(path.rename(tmp_path / "other"))
            path.write_bytes(b"new")
        return lock(file)

    monkeypatch.setattr(publishing, "try_lock", replace_before)
    with open_locked(path, new=False) as file:
        assert file.read() == b"new"
        assert open_locked(path, new=False) is None


def test_a_link_is_not_opened(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with pytest.raises(OSError, match="is a link"):
        open_locked(tmp_path / "link", new=False)
    with pytest.raises(FileExistsError):
        open_locked(tmp_path / "link", new=True)
