"""Files are opened in one way, which works with PyAV before and after 19."""

import importlib

import av
import pytest
from infinitetalk.pipeline.job import container


@pytest.mark.parametrize(("version", "told"), [("14.2.0", True), ("18.1.0", True), ("19.0.2", False)])
def test_what_pyav_is_told_of_tags(monkeypatch, version, told):
    """From 19 on it has no such argument, and decodes tags when they are asked for."""
    given = {}
    monkeypatch.setattr(av, "open", lambda source, mode, **more: given.update(more))
    monkeypatch.setattr(av, "__version__", version)
    importlib.reload(container).open_container(container.Path("a.mp4"))
    monkeypatch.undo()
    importlib.reload(container)
    assert ("metadata_errors" in given) == told
    assert given["container_options"] == {"protocol_whitelist": "file"}


def test_a_tag_that_is_no_text_is_none():
    class Broken:
        @property
        def metadata(self):
            return {"title": b"\xff".decode()}

    assert container.tag(Broken(), "title") is None
