"""The planner's journal: every decision with what went into it, bounded, for its owner only, and without secrets."""

import json
import stat
import subprocess
from pathlib import Path

from conftest import BIN, wait_until
from test_api import PYTHON

SECRET = "hunter2-hunter2"


def lines(server):
    files = sorted(Path(server.folder, "journal").iterdir())
    return files, [line for file in files for line in file.read_text().splitlines()]


def test_decisions_are_journaled_with_their_pictures_and_without_secrets(own_server):
    own_server.create("told", PYTHON, Environment={"Variables": {"PASSWORD": SECRET}})
    own_server.publish("told")
    assert own_server.settled("told")["State"] == "Active"

    def activated():
        files, found = lines(own_server)
        return (files, found) if any('"Activate"' in line for line in found) else None

    files, found = wait_until(activated, "the decision to activate the version in the journal")
    first = json.loads(found[0])["keyframe"]
    assert first["format"] == 1 and first["sequence"] == 1 and {"picture", "memory", "plan", "coins", "now"} <= set(first)
    text = "\n".join(found)
    assert "PASSWORD" in text and "(not recorded)" in text and SECRET not in text
    assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600]
    assert stat.S_IMODE(files[0].parent.stat().st_mode) == 0o700
    # A new start begins a file of its own, with a keyframe, also after a crash.
    own_server.kill()
    own_server.start()
    files, _ = wait_until(lambda: (now := lines(own_server)) and len(now[0]) == 2 and now[0][1].stat().st_size and now, "a second file")
    assert files[1].read_text().startswith('{"keyframe":{"format":1,"sequence":1,')
    own_server.kill()
    replay = [BIN, "sim", "replay", files[0].parent]
    replayed = json.loads(subprocess.run([*replay, "--json"], capture_output=True, text=True, check=True).stdout)
    assert replayed["decisions"] >= 4 and replayed["differences"] == 0, replayed
    # What was decided otherwise is found, and said.
    text = files[0].read_text()
    files[0].write_text(text.replace("the minimum is not reached", "it was told to", 1))
    told = subprocess.run(replay, capture_output=True, text=True)
    assert told.returncode == 1 and "1 of" in told.stderr and "the first is decision" in told.stdout, told
