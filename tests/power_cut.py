"""Power cuts: what was acknowledged is on the disk at every moment, not only in the kernel's memory.

The server's data folder is an ext4 on a loop device whose file lies on btrfs. A clone of that file is what the disk
holds at one moment: all that was written to the device, and nothing of what the kernel still keeps. Cuts are such
clones, taken under load. Run against a server that writes with `synchronous=FULL`, and, as the control that the test
finds a loss at all, against one that does not.
"""

import argparse
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from conftest import ROLE, Server, zip_of
from crash_async import Sender


def run(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


class Disk:
    """An ext4 whose device can be cloned."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="ondol-power-cut-"))
        self.outer, self.data, self.cut = (self.folder / name for name in ("outer", "data", "cut"))
        [place.mkdir() for place in (self.outer, self.data, self.cut)]
        run("truncate", "-s", "8G", self.folder / "outer.img")
        run("mkfs.btrfs", "-q", self.folder / "outer.img")
        run("mount", "-o", "loop", self.folder / "outer.img", self.outer)
        run("truncate", "-s", "1G", self.outer / "disk.img")
        run("mkfs.ext4", "-q", self.outer / "disk.img")
        run("mount", "-o", "loop", self.outer / "disk.img", self.data)

    def clone(self):
        """The disk as it is at this moment."""
        run("cp", "--reflink=always", self.outer / "disk.img", self.outer / "cut.img")

    def events_of_clone(self, keep_as=None):
        """The ids of the events that are on the clone, as a start after the cut finds them."""
        run("mount", "-o", "loop", self.outer / "cut.img", self.cut)
        try:
            with sqlite3.connect(self.cut / "ondol/ondol.db") as database:
                assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
                found = {row[0] for row in database.execute("SELECT json_extract(CAST(head AS TEXT), '$.request') FROM events")}
            database.close()
            if keep_as:
                shutil.copytree(self.cut / "ondol", keep_as, ignore=shutil.ignore_patterns("*.sock", "run"))
            return found
        finally:
            run("umount", self.cut)
            (self.outer / "cut.img").unlink()

    def remove(self):
        for place in (self.data, self.outer):
            subprocess.run(["umount", place], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


def cuts(count, chance, synchronous):
    """How many acknowledged events each cut lost, and of how many."""
    disk = Disk()
    # Without a runtime nothing takes an event: all of them stay in the queue.
    empty = tempfile.mkdtemp(prefix="ondol-power-cut-runtimes-")
    server = Server(str(disk.data / "ondol"), "--runtime-dir", empty, environment={"ONDOL_STORE_SYNCHRONOUS": synchronous})
    sender = None
    try:
        server.client.create_function(FunctionName="f", Runtime="python3.13", Handler="app.handler", Role=ROLE, Code={"ZipFile": zip_of({"app.py": "x"})})
        url_file = disk.folder / "url"
        url_file.write_text(server.url)
        sender = Sender(url_file, 100_000_000, 1_000_000_000)
        outcomes = []
        for number in range(count):
            time.sleep(chance.uniform(0.1, 0.9))
            acknowledged = set(list(sender.acknowledged))
            disk.clone()
            copy = disk.folder / "copy" if number == count - 1 else None
            found = disk.events_of_clone(copy)
            lost = [request for request in acknowledged if request.replace("-", "") not in found]
            outcomes.append((len(lost), len(acknowledged)))
        sender.process.kill()
        server.kill()
        # A server starts on what a cut left.
        again = Server(str(disk.folder / "copy"), "--runtime-dir", empty)
        again.stop()
        return outcomes
    finally:
        if sender:
            sender.process.kill()
        if server.process.poll() is None:
            server.kill()
        disk.remove()
        shutil.rmtree(empty, ignore_errors=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--cuts", type=int, default=10)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", file=sys.stderr)
    chance = random.Random(arguments.seed)
    # What ten cuts acknowledge fits on a disk.
    rounds = [min(10, arguments.cuts - done) for done in range(0, arguments.cuts, 10)]
    careful = [outcome for count in rounds for outcome in cuts(count, chance, "FULL")]
    careless = [outcome for count in rounds for outcome in cuts(count, chance, "NORMAL")]
    show = lambda outcomes: ", ".join(f"{lost} of {of}" for lost, of in outcomes)
    print(f"power cuts, acknowledged events lost: synchronous=FULL {show(careful)}")
    print(f"control, synchronous=NORMAL: {show(careless)}")
    assert all(of for _, of in careful), "nothing was acknowledged before a cut"
    assert sum(lost for lost, _ in careful) == 0, "acknowledged events were lost"
    assert sum(lost for lost, _ in careless) > 0, "the control lost nothing, so this test shows nothing"
