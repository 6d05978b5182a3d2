"""A run that is ended at a call that changes a file goes on to the same bytes: ``make test-crash`` tries all calls."""

import shutil

import pytest
from infinitetalk.tests.support.crashing import run_all

pytestmark = [pytest.mark.whole, pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler (cc)")]


@pytest.mark.parametrize("every", [24, pytest.param(1, marks=pytest.mark.long)])
def test_nothing_is_lost_by_a_crash_or_a_full_disk(every):
    assert "no videos were lost" in run_all("--every", str(every))
