"""Full, failing, damaged and read-only disks: nothing is acknowledged that is not durable, and ready functions go on."""

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from conftest import BIN, ROOT, Server, wait_until, zip_of
from test_api import PYTHON, fault


def ondol(*arguments, code=0):
    done = subprocess.run([BIN, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == code, (arguments, done.stdout, done.stderr)
    return done


def functions(server):
    return {f["FunctionName"] for f in server.client.list_functions()["Functions"]}


@pytest.fixture
def small_disk():
    folder = tempfile.mkdtemp(prefix="ondol-small-")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "ondol-test", folder], check=True)
    yield Path(folder)
    subprocess.run(["umount", "-l", folder], check=True)
    os.rmdir(folder)


def fill(disk):
    with open(disk / "filler", "wb", buffering=0) as out:
        try:
            while out.write(b"x" * 65536):
                pass
        except OSError:
            pass
    return disk / "filler"


def test_a_full_disk_takes_no_event_and_loses_none(small_disk):
    server = Server(str(small_disk / "data"), "--time-scale=60")
    try:
        server.provider("cp")
        server.deploy("ready", PYTHON, concurrency=2)

        def send():
            answer = server.client.invoke(FunctionName="ready", InvocationType="Event", Payload=json.dumps({"pad": "x" * 20_000}))
            return answer["StatusCode"]

        accepted = 0
        filler = fill(small_disk)
        refused = None
        for _ in range(600):
            try:
                assert send() == 202
                accepted += 1
            except server.client.exceptions.ClientError as error:
                refused = error
                break
        assert refused is not None, f"{accepted} events were taken by a full disk"
        assert refused.response["ResponseMetadata"]["HTTPStatusCode"] >= 500, refused
        filler.unlink()
        assert wait_until(lambda: send() == 202, "room") and (accepted := accepted + 1)

        def over():
            books = json.loads(ondol("queue", "--json", "--port", str(server.port)).stdout)["functions"]
            row = next((row for row in books if row["function"] == "ready"), {})
            return row if row.get("queued") == 0 and row.get("accepted", 0) >= accepted else None

        row = wait_until(over, "every event to end")
        assert row["accepted"] == row["succeeded"], row
        server.kill()
        server.start()
        row = wait_until(over, "the books after a kill")
        assert row["accepted"] == row["succeeded"] and row["accepted"] >= accepted, row
    finally:
        server.remove()


def test_a_full_disk_refuses_changes_and_nothing_else(small_disk):
    server = Server(str(small_disk / "data"))
    try:
        server.provider("cp")
        server.deploy("ready", PYTHON, concurrency=2)
        filler = fill(small_disk)
        code, text, status = fault(server.create, "more", {"app.py": "#" * 500_000, "random": os.urandom(300_000)})
        assert (code, status) == ("ServiceException", 500) and "The disk of the data folder is full" in text, text
        # Documents alone: many small changes until the log of the database has no room either.
        texts = []
        for number in range(300):
            try:
                server.client.update_function_configuration(FunctionName="ready", Description=str(number) * 50)
                accepted = str(number) * 50
            except server.client.exceptions.ClientError as error:
                texts.append(error.response["Error"]["Message"])
                break
        assert texts and "The disk of the data folder is full" in texts[0] and "Free some space" in texts[0], texts
        assert any("disk of the data folder is full" in note for note in server.status()["notes"])
        for number in range(20):
            assert server.invoke("ready", {"n": number}) == (None, {"n": number})
        # What dies meanwhile is replaced: starting needs no room on this disk but for a socket's name.
        filler.write_bytes(b"x" * (filler.stat().st_size - (64 << 10)))
        victim = server.ready("ready")[0]
        for listing in Path("/proc").glob("[0-9]*/cgroup"):
            try:
                if f"/{victim}" in listing.read_text():
                    os.kill(int(listing.parent.name), 9)
            except OSError:
                pass
        wait_until(lambda: victim not in server.ready("ready") and len(server.ready("ready")) == 3, "another environment")
        filler.unlink()
        server.client.update_function_configuration(FunctionName="ready", Description="after")
        server.create("more", PYTHON)
        assert not any("full" in note for note in server.status()["notes"])
        server.kill()
        server.start()
        assert functions(server) == {"ready", "more"}
        assert server.client.get_function_configuration(FunctionName="ready")["Description"] == "after", accepted
    finally:
        if server.process.poll() is None:
            server.stop()


@pytest.fixture(scope="module")
def faults(tmp_path_factory):
    library = tmp_path_factory.mktemp("faults") / "faults.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, ROOT / "tests/faults.c", "-ldl"], check=True)
    return library


@pytest.mark.parametrize("kind", ["FAULT_FSYNC", "FAULT_WRITE"])
def test_a_failing_disk_takes_no_change_until_a_restart_and_invokes_go_on(faults, tmp_path, kind):
    fails = tmp_path / "fails"
    server = Server(None, environment={"LD_PRELOAD": str(faults), kind: str(fails)})
    try:
        server.provider("cp")
        server.deploy("ready", PYTHON, concurrency=2)
        fails.touch()
        code, text, status = fault(server.client.update_function_configuration, FunctionName="ready", Description="unsure")
        assert (code, status) == ("ServiceException", 500) and "disk of the data folder failed" in text and "restart" in text, text
        fails.unlink()
        # What the disk holds is unknown now: nothing is promised until it was read again.
        code, text, _ = fault(server.client.update_function_configuration, FunctionName="ready", Description="later")
        assert code == "ServiceException" and "restart" in text, text
        assert server.invoke("ready", {"n": 1}) == (None, {"n": 1})
        assert any("failed" in note for note in server.status()["notes"])
        server.stop()
        assert server.process.returncode == 0
        server.start()
        # Refused is not known to be stored; it may be there or not, but whole.
        assert server.client.get_function_configuration(FunctionName="ready")["Description"] in ("", "unsure")
        server.client.update_function_configuration(FunctionName="ready", Description="after")
        wait_until(lambda: len(server.ready("ready")) == 3, "the environments")
    finally:
        server.remove()


def test_a_read_only_folder_says_what_to_do(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
        text = ondol("up", "--port", "0", "--data-dir", str(folder), code=1).stderr
        assert "can't be written" in text and "--data-dir" in text, text
    finally:
        subprocess.run(["umount", folder], check=True)


def test_damage_is_found_at_the_start_and_a_backup_brings_it_back(own_server, tmp_path):
    server = own_server
    server.deploy("kept", PYTHON, concurrency=2)
    layer = server.client.publish_layer_version(LayerName="l", Content={"ZipFile": zip_of({"f": "x"})})["LayerVersionArn"]
    server.client.update_function_configuration(FunctionName="kept", Layers=[layer])
    file = tmp_path / "backup"
    # While it runs, with the owner's rights only.
    made = json.loads(ondol("backup", str(file), "--data-dir", server.folder, "--json").stdout)
    assert file.stat().st_mode & 0o777 == 0o600 and made["artifacts"] == 2, made
    server.stop()
    database = Path(server.folder, "ondol.db")
    whole = database.read_bytes()
    assert b"app.handler" in whole
    database.write_bytes(whole.replace(b"app.handler", b"app.handles"))
    text = ondol("up", "--port", "0", "--data-dir", server.folder, code=1).stderr
    assert "is damaged" in text and "ondol restore" in text, text
    doctor = ondol("doctor", "--json", "--port", "0", "--data-dir", server.folder, code=1).stdout
    found = next(f for f in json.loads(doctor)["findings"] if f["name"] == "data folder")
    assert found["verdict"] == "missing" and "ondol restore" in found["mend"], found
    # A file that is no backup, or a broken one, takes nothing from what is left.
    (tmp_path / "wrong").write_bytes(file.read_bytes()[:-100])
    assert "is no backup" in ondol("restore", str(tmp_path / "wrong"), "--data-dir", server.folder, code=1).stderr
    assert "is damaged" in ondol("up", "--port", "0", "--data-dir", server.folder, code=1).stderr
    assert not list(Path(server.folder).glob("ondol.db.damaged-*"))
    restored = json.loads(ondol("restore", str(file), "--data-dir", server.folder, "--json").stdout)
    assert restored == made
    assert list(Path(server.folder).glob("ondol.db.damaged-*")), "what was damaged is kept"
    again = json.loads(ondol("backup", str(tmp_path / "again"), "--data-dir", server.folder, "--json").stdout)
    assert again["state_sha256"] == made["state_sha256"]
    server.start()
    assert server.client.get_function_configuration(FunctionName="kept")["Layers"][0]["Arn"] == layer
    wait_until(lambda: len(server.ready("kept")) == 3, "the environments")
    assert server.invoke("kept", {"n": 1}) == (None, {"n": 1})


def test_a_running_server_is_restored_and_follows(own_server, tmp_path):
    server = own_server
    server.deploy("kept", PYTHON, concurrency=2)
    keys = ondol("keys", "create", "--data-dir", server.folder, "--json").stdout
    file = tmp_path / "backup"
    ondol("backup", str(file), "--data-dir", server.folder)
    server.deploy("later", PYTHON, concurrency=2)
    server.client.update_function_configuration(FunctionName="kept", Description="changed")
    ready = set(server.ready("kept"))
    ondol("keys", "delete", json.loads(keys)["AWS_ACCESS_KEY_ID"], "--data-dir", server.folder)
    text = ondol("restore", str(file), "--data-dir", server.folder).stdout
    assert "restored the state" in text
    assert functions(server) == {"kept"}
    assert server.client.get_function_configuration(FunctionName="kept")["Description"] == ""
    assert set(server.ready("kept")) == ready, "what is in both goes on undisturbed"
    assert ondol("keys", "list", "--data-dir", server.folder).stdout.strip() == json.loads(keys)["AWS_ACCESS_KEY_ID"]
    assert server.invoke("kept", {"n": 1}) == (None, {"n": 1})
    wait_until(lambda: server.version_status("later") is None, "the later function's environments to end")
    # A damaged backup changes nothing.
    bytes_ = bytearray(file.read_bytes())
    bytes_[len(bytes_) // 2] ^= 0xFF
    file.write_bytes(bytes_)
    assert "damaged" in ondol("restore", str(file), "--data-dir", server.folder, code=1).stderr
    file.write_bytes(b"no backup at all")
    assert "is no backup of Ondol" in ondol("restore", str(file), "--data-dir", server.folder, code=1).stderr
    assert functions(server) == {"kept"}


def test_a_data_folder_of_an_older_version_comes_up_again(tmp_path):
    """The folder was written by the version before; `tests/data-folders` keeps one of each schema."""
    for fixture in sorted((ROOT / "tests/data-folders").iterdir()):
        folder = tmp_path / fixture.name
        shutil.copytree(fixture, folder)
        server = Server(str(folder))
        try:
            assert server.client.get_function_configuration(FunctionName="kept")["Environment"]["Variables"] == {"COLOUR": "green"}
            wait_until(lambda: len(server.ready("kept")) == 3 and len(server.ready("kept", "1")) == 1, "the environments")
            schema = int(fixture.name.removeprefix("schema-"))
            assert server.invoke("kept", {"n": 1})[1]["event"] == {"n": 1}, schema
            config = server.client.get_function_scaling_config(FunctionName="kept", Qualifier="1")
            assert config["AppliedFunctionScalingConfig"] == {"MinExecutionEnvironments": 1, "MaxExecutionEnvironments": 2}
            assert server.client.list_tags(Resource="arn:aws:lambda:us-east-1:000000000000:function:kept")["Tags"] == {"team": "floor"}
        finally:
            server.remove()


def test_packages_nobody_needs_are_let_go(own_server):
    server = own_server
    server.deploy("gone", PYTHON, concurrency=1)
    zips = Path(server.folder, "artifacts/zip")
    assert len(list(zips.iterdir())) == 1
    server.client.delete_function(FunctionName="gone")
    wait_until(lambda: not list(zips.iterdir()) and not list(Path(server.folder, "artifacts/unpacked").iterdir()), "the package to be removed")
    assert server.client.list_functions()["Functions"] == []
    assert not list(Path(server.folder, "artifacts/incoming").iterdir())
