"""Black-box tests: the built binary, real runtimes, clients we did not write.

ONDOL_BIN is the binary, ONDOL_RUST_EXAMPLE the built examples/rust. `cargo xtask test` sets both.
"""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

# Holds every answer any test gets against the service model.
pytest_plugins = ["recorder"]

ROOT = Path(__file__).resolve().parent.parent
BIN = os.environ["ONDOL_BIN"]
ACCOUNT = "000000000000"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/r"
# Tests ask faster than people do; those about throttling set quotas of their own, which come later.
UNTHROTTLED = [f"--quota={name}=1000000" for name in ("control-requests-per-second", "get-function-requests-per-second", "capacity-provider-writes-per-second")]
TRUST = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}]})
# What functions with sources and dead letters need of others.
MAY = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": ["sqs:*", "sns:*", "kinesis:*", "dynamodb:*"], "Resource": "*"}]}
PROVIDER_ARN = f"arn:aws:lambda:us-east-1:{ACCOUNT}:capacity-provider:"
LATEST_PUBLISHED = "$LATEST.PUBLISHED"


def wait_until(condition, what, seconds=60):
    """Waits for a state, not for a time; says what it waited for when it gives up."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"still waiting for {what}"
        time.sleep(0.02)


def zip_of(files):
    """A deployment package of {name: text or bytes or (text, mode)}."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            content, mode = content if isinstance(content, tuple) else (content, 0o100644)
            entry = zipfile.ZipInfo(name)
            entry.external_attr = mode << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return out.getvalue()


class Server:
    def __init__(self, folder=None, *flags, environment=None, binary=BIN, umask=0o022):
        self.binary = binary
        self.umask = umask
        self.folder = folder or tempfile.mkdtemp(prefix="ondol-test-")
        self.flags = flags
        self.environment = environment or {}
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [self.binary, "up", "--port", "0", "--data-dir", self.folder, *UNTHROTTLED, *self.flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | self.environment,
            umask=self.umask,
        )
        seen = ""
        for line in self.process.stdout:
            seen += line
            found = re.search(r"AWS_ENDPOINT_URL=(http://\S+)", line)
            if found:
                self.url = found.group(1)
                self.port = int(self.url.rsplit(":", 1)[1])
                self.client = self.make_client()
                self.make_role()
                return
        raise AssertionError(f"the server did not start:\n{seen}")

    def make_role(self):
        """The role of the tests' functions and providers; a folder that had it has it still."""
        iam = self.make_client("iam")
        try:
            iam.create_role(RoleName="r", AssumeRolePolicyDocument=TRUST)
            iam.put_role_policy(RoleName="r", PolicyName="may", PolicyDocument=json.dumps(MAY))
        except iam.exceptions.EntityAlreadyExistsException:
            pass
        except iam.exceptions.ClientError as error:
            # A disk that takes nothing, and keys of its own, are some tests' own doing.
            if "couldn't be stored" not in str(error) and error.response["Error"]["Code"] != "InvalidClientTokenId":
                raise

    def make_client(self, service="lambda", key="test", secret="test", **settings):
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            config=Config(retries={"total_max_attempts": 1}, max_pool_connections=300, read_timeout=60, **settings),
        )

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        self.process.stdout.close()

    def kill(self):
        self.process.kill()
        self.process.wait(30)
        self.process.stdout.close()

    def remove(self):
        if self.process.poll() is None:
            self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def status(self):
        out = subprocess.run([BIN, "status", "--json", "--port", str(self.port)], capture_output=True, text=True, check=True)
        return json.loads(out.stdout)

    def version_status(self, function, version=LATEST_PUBLISHED):
        versions = self.status()["functionVersions"]
        return next((v for v in versions if v["function"] == function and v["version"] == version), None)

    def ready(self, function, version=LATEST_PUBLISHED):
        """The ids of the execution environments that are ready."""
        found = self.version_status(function, version)
        return [e["id"] for e in found["executionEnvironments"] if e["state"] == "Ready"] if found else []

    def provider(self, name, **settings):
        self.client.create_capacity_provider(
            CapacityProviderName=name,
            VpcConfig={"SubnetIds": ["subnet-1", "subnet-2", "subnet-3"], "SecurityGroupIds": ["sg-1"]},
            PermissionsConfig={"CapacityProviderOperatorRoleArn": ROLE},
            **settings,
        )
        return PROVIDER_ARN + name

    def create(self, name, files, runtime="python3.13", handler="app.handler", concurrency=None, provider="cp", **settings):
        managed = {"CapacityProviderArn": PROVIDER_ARN + provider}
        if concurrency:
            managed["PerExecutionEnvironmentMaxConcurrency"] = concurrency
        return self.client.create_function(
            FunctionName=name,
            Runtime=runtime,
            Handler=handler,
            Role=ROLE,
            Code={"ZipFile": zip_of(files)},
            MemorySize=settings.pop("MemorySize", 2048),
            CapacityProviderConfig={"LambdaManagedInstancesCapacityProviderConfig": managed},
            **settings,
        )

    def publish(self, name, **settings):
        return self.client.publish_version(FunctionName=name, PublishTo="LATEST_PUBLISHED", **settings)

    def settled(self, name, qualifier=LATEST_PUBLISHED):
        """Waits until a version is neither Pending nor being updated."""

        def state():
            found = self.client.get_function_configuration(FunctionName=name, Qualifier=qualifier)
            busy = found["State"] in ("Pending", "Deactivating") or found.get("LastUpdateStatus") == "InProgress"
            return None if busy else found

        return wait_until(state, f"{name}:{qualifier} to settle")

    def deploy(self, name, files, **settings):
        self.create(name, files, **settings)
        self.publish(name)
        found = self.settled(name)
        assert found["State"] == "Active", found.get("StateReason")

    def invoke(self, name, payload=None, **settings):
        """(function error or None, decoded answer)"""
        answer = self.client.invoke(FunctionName=name, Payload=json.dumps(payload or {}), **settings)
        return answer.get("FunctionError"), json.load(answer["Payload"])


@pytest.fixture(scope="module")
def server():
    """One server for a file's tests that do not stop it."""
    server = Server()
    server.provider("cp")
    yield server
    server.remove()


@pytest.fixture
def own_server():
    """A server of the test's own, to stop and start."""
    server = Server()
    server.provider("cp")
    yield server
    server.remove()


EXAMPLES = {
    "python3.13": ("app.handler", {"app.py": (ROOT / "examples/python/app.py").read_text()}, 16),
    "nodejs24.x": ("index.handler", {"index.mjs": (ROOT / "examples/nodejs/index.mjs").read_text()}, 32),
    "provided.al2023": (
        "bootstrap",
        {"bootstrap": (Path(os.environ["ONDOL_RUST_EXAMPLE"]).read_bytes(), 0o100755)},
        8,
    ),
}


@pytest.fixture
def numbers(record_property):
    """Notes how long something took; nothing is asserted about it. `pytest -s` shows it."""

    @contextmanager
    def noted(what):
        start = time.monotonic()
        yield
        seconds = round(time.monotonic() - start, 2)
        record_property(what, seconds)
        print(f"{what}: {seconds} s")

    return noted
