"""Everything COMPATIBILITY.md promises was asked for, and answered, by a test of this run."""

import re

import pytest
import recorder
from conftest import ROOT


def promised():
    """{(service, operation)} of every line that does not say `unsupported`."""
    found = set()
    service = None
    for line in (ROOT / "COMPATIBILITY.md").read_text().splitlines():
        if line.startswith("## "):
            service = line.split()[1].lower()
        row = re.fullmatch(r"\| (\w+) \| (.+) \|", line)
        if row and row[1] != "operation" and row[2] != "unsupported":
            found.add((service, row[1]))
    return found


def test_the_page_can_be_read():
    assert ("lambda", "CreateFunction") in promised()
    assert len(promised()) >= 28


@pytest.mark.whole_run
def test_every_promised_operation_was_answered():
    answered = {operation for operation, statuses in recorder.answered.items() if any(status < 300 for status in statuses)}
    missing = sorted(f"{service}:{operation}" for service, operation in promised() - answered)
    assert not missing, f"no test of this run got an answer from: {', '.join(missing)}"
