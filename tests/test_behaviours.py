"""Everything COMPATIBILITY.md promises was asked for, and answered, by a test of this run."""

import pytest

import recorder
from service_model import promised


def test_the_page_can_be_read():
    assert ("lambda", "CreateFunction") in promised()
    assert len(promised()) >= 28


@pytest.mark.whole_run
def test_every_promised_operation_was_answered():
    answered = {operation for operation, statuses in recorder.answered.items() if any(status < 300 for status in statuses)}
    missing = sorted(f"{service}:{operation}" for service, operation in promised() - answered)
    assert not missing, f"no test of this run got an answer from: {', '.join(missing)}"
