"""What others install: the static binary, the package, the unit, and the image started once."""

import json
import os
import re
import signal
import subprocess
import tempfile
from pathlib import Path

import boto3
import pytest
from conftest import EXAMPLES, TRUST, Server, wait_until, zip_of

DIST = Path(os.environ["ONDOL_DIST"])
RUNTIMES = "/var/lib/ondol/runtimes"


def run(*command, **settings):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=300, **settings)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    folder = tmp_path_factory.mktemp("package")
    (deb,) = DIST.glob("*.deb")
    run("dpkg-deb", "-x", deb, folder)
    return folder


def test_the_package_is_whole_and_its_unit_valid(package):
    run("sha256sum", "-c", "SHA256SUMS", cwd=DIST)
    assert "statically linked" in subprocess.run(["ldd", package / "usr/bin/ondol"], capture_output=True, text=True).stdout
    assert re.fullmatch(r"ondol \d+\.\d+\.\d+\n", run(package / "usr/bin/ondol", "--version"))
    # The same unit, with the program where it is here.
    unit = package / "ondol.service"
    unit.write_text((package / "usr/lib/systemd/system/ondol.service").read_text().replace("/usr/bin/ondol", str(package / "usr/bin/ondol")))
    run("systemd-analyze", "verify", "--man=no", unit)
    run("bash", "-n", package / "usr/share/bash-completion/completions/ondol")
    pages = {page.name for page in (package / "usr/share/man/man1").iterdir()}
    assert {"ondol.1.gz", "ondol-up.1.gz", "ondol-logs.1.gz", "ondol-keys-create.1.gz"} <= pages, pages
    (tarball,) = DIST.glob("*.tar.gz")
    assert "./usr/bin/ondol" in run("tar", "-tzf", tarball).split()


def test_the_static_binary_runs_functions(package):
    handler, files, each = EXAMPLES["provided.al2023"]
    server = Server(binary=str(package / "usr/bin/ondol"))
    try:
        server.provider("cp")
        server.deploy("f", files, runtime="provided.al2023", handler=handler, concurrency=each)
        assert server.invoke("f", {"tag": "static", "wait_ms": 0})[1]["tag"] == "static"
    finally:
        server.remove()


@pytest.fixture(scope="module")
def image():
    """The image as the Dockerfile says, on a base made of an installed runtime, as no registry is asked."""
    with tempfile.TemporaryDirectory(prefix="ondol-image-") as folder:
        store = ["buildah", "--root", f"{folder}/root", "--runroot", f"{folder}/run", "--storage-driver", "vfs"]
        base = run(*store, "from", "scratch").strip()
        run(*store, "copy", "-q", base, f"{RUNTIMES}/provided.al2023/root", "/")
        run(*store, "commit", "-q", base, "localhost/base")
        run(*store, "build", "-q", "--build-arg", "BASE=localhost/base", "-t", "localhost/ondol", DIST)
        container = run(*store, "from", "--pull-never", "localhost/ondol").strip()
        settings = json.loads(run(*store, "inspect", "--type", "image", "localhost/ondol"))["OCIv1"]["config"]
        yield Path(run(*store, "mount", container).strip()), settings, Path(folder)
        run(*store, "rm", "--all")


def bundle(image, *more):
    """What `docker run --privileged --cgroupns=host --network=host` makes of the image."""
    root, settings, folder = image
    place = folder / "bundle"
    place.mkdir(exist_ok=True)
    (place / "config.json").unlink(missing_ok=True)
    run("runc", "spec", cwd=place)
    config = json.loads((place / "config.json").read_text())
    bits = int(re.search(r"CapBnd:\s*(\w+)", Path("/proc/self/status").read_text())[1], 16)
    names = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE".split()
    held = [f"CAP_{name}" for place_, name in enumerate(names) if bits >> place_ & 1]
    config["process"] |= {
        "terminal": False, "noNewPrivileges": False, "rlimits": [],
        "args": settings["Entrypoint"] + settings["Cmd"] + list(more), "env": settings["Env"] + ["PATH=/usr/bin:/bin"],
        "capabilities": {kind: held for kind in ("bounding", "effective", "permitted")},
    }  # fmt: skip
    config["root"] = {"path": str(root), "readonly": False}
    config["linux"] = {"namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")], "resources": {"devices": [{"allow": True, "access": "rwm"}]}}
    config["mounts"] = [mount for mount in config["mounts"] if not mount["destination"].startswith("/sys")]
    config["mounts"] += [{"destination": path, "type": "none", "source": path, "options": ["rbind", "rw"]} for path in ("/sys", RUNTIMES)]
    (place / "config.json").write_text(json.dumps(config))
    return place


def test_the_image_starts_serves_and_stops(image):
    handler, files, each = EXAMPLES["provided.al2023"]
    place = bundle(image, "--port", "0", "--listen", "127.0.0.1")
    name = f"ondol-test-{os.getpid()}"
    process = subprocess.Popen(["runc", "run", name], cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        lines = iter(process.stdout.readline, "")
        seen = []
        url = next(found[1] for line in lines if seen.append(line) or (found := re.search(r"AWS_ENDPOINT_URL=(\S+)", line)))
        of = lambda service: boto3.client(service, endpoint_url=url, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test")
        client, role = of("lambda"), of("iam").create_role(RoleName="r", AssumeRolePolicyDocument=TRUST)["Role"]["Arn"]
        arn = client.create_capacity_provider(CapacityProviderName="cp", VpcConfig={"SubnetIds": ["subnet-1"], "SecurityGroupIds": []}, PermissionsConfig={"CapacityProviderOperatorRoleArn": role})["CapacityProvider"]["CapacityProviderArn"]
        managed = {"CapacityProviderArn": arn, "PerExecutionEnvironmentMaxConcurrency": each}
        client.create_function(FunctionName="f", Runtime="provided.al2023", Handler=handler, Role=role, MemorySize=2048, Code={"ZipFile": zip_of(files)},
                               CapacityProviderConfig={"LambdaManagedInstancesCapacityProviderConfig": managed})  # fmt: skip
        client.publish_version(FunctionName="f", PublishTo="LATEST_PUBLISHED")
        state = lambda: client.get_function_configuration(FunctionName="f", Qualifier="$LATEST.PUBLISHED")["State"]
        wait_until(lambda: state() == "Active", "the function in the container")
        answer = json.load(client.invoke(FunctionName="f", Payload=json.dumps({"tag": "contained", "wait_ms": 0}))["Payload"])
        assert answer["tag"] == "contained"
        run("runc", "kill", name, "TERM")
        assert process.wait(30) == 0, "".join(seen) + process.stdout.read()
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()
        subprocess.run(["runc", "delete", "--force", name], capture_output=True)
