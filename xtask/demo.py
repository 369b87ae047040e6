"""The demo's user: boto3, retries off, nothing but the public AWS API.

usage: demo.py ENDPOINT EXAMPLES_FOLDER RUST_BOOTSTRAP
"""

import base64
import io
import json
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

ENDPOINT, EXAMPLES, BOOTSTRAP = sys.argv[1:4]
ROLE = "arn:aws:iam::000000000000:role/demo"
FUNCTIONS = [
    # name, runtime, handler, (file in the package, source, mode), requests each environment takes at once
    ("demo-python", "python3.13", "app.handler", ("app.py", f"{EXAMPLES}/python/app.py", 0o644), 16),
    ("demo-nodejs", "nodejs24.x", "index.handler", ("index.mjs", f"{EXAMPLES}/nodejs/index.mjs", 0o644), 32),
    ("demo-rust", "provided.al2023", "bootstrap", ("bootstrap", BOOTSTRAP, 0o755), 8),
]

client = boto3.client(
    "lambda",
    endpoint_url=ENDPOINT,
    region_name="us-east-1",
    aws_access_key_id="test",
    aws_secret_access_key="test",
    config=Config(retries={"total_max_attempts": 1}, max_pool_connections=256),
)

iam = boto3.client(
    "iam", endpoint_url=ENDPOINT, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
)
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{
        "Effect": "Allow",
        "Principal": {"Service": "lambda.amazonaws.com"},
        "Action": "sts:AssumeRole",
        "Condition": {"StringEquals": {"aws:SourceAccount": "000000000000"}},
    }],
}
iam.create_role(RoleName="demo", AssumeRolePolicyDocument=json.dumps(TRUST))


def package(name, source, mode):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive, open(source, "rb") as file:
        entry = zipfile.ZipInfo(name)
        entry.external_attr = (0o100000 | mode) << 16
        archive.writestr(entry, file.read())
    return out.getvalue()


def invoke(name, tag):
    """("ok", answer), ("error", answer) or ("throttled", cause)"""
    try:
        answer = client.invoke(FunctionName=name, Payload=json.dumps({"tag": tag, "wait_ms": 200}))
        kind = "error" if "FunctionError" in answer else "ok"
        return kind, json.load(answer["Payload"])
    except ClientError as fault:
        if fault.response["Error"]["Code"] != "TooManyRequestsException":
            raise
        return "throttled", fault.response["ResponseMetadata"]["HTTPHeaders"]["x-ondol-throttle-cause"]


def at_once(name, count):
    with ThreadPoolExecutor(count) as pool:
        started = time.monotonic()
        outcomes = list(pool.map(lambda tag: invoke(name, tag), range(count)))
        return outcomes, time.monotonic() - started


provider = client.create_capacity_provider(
    CapacityProviderName="demo",
    VpcConfig={"SubnetIds": ["subnet-1", "subnet-2", "subnet-3"], "SecurityGroupIds": ["sg-1"]},
    PermissionsConfig={"CapacityProviderOperatorRoleArn": ROLE},
)["CapacityProvider"]["CapacityProviderArn"]
print(f"created {provider}")

rows = []
for name, runtime, handler, files, each in FUNCTIONS:
    client.create_function(
        FunctionName=name,
        Runtime=runtime,
        Handler=handler,
        Role=ROLE,
        Code={"ZipFile": package(*files)},
        MemorySize=2048,
        Timeout=10,
        CapacityProviderConfig={
            "LambdaManagedInstancesCapacityProviderConfig": {
                "CapacityProviderArn": provider,
                "PerExecutionEnvironmentMaxConcurrency": each,
            }
        },
    )
    published = client.publish_version(FunctionName=name, PublishTo="LATEST_PUBLISHED")
    started = time.monotonic()
    waiter = client.get_waiter("published_version_active")
    waiter.wait(FunctionName=name, Qualifier=published["Version"], WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    print(f"published {name}:{published['Version']}, Active")

    environments = 3
    holds = environments * each
    outcomes, wall = at_once(name, holds)
    answers = [answer for kind, answer in outcomes if kind == "ok"]
    crossed = sum(kind == "ok" and answer["tag"] != tag for tag, (kind, answer) in enumerate(outcomes))
    errors = sum(kind == "error" for kind, _ in outcomes) + crossed
    early = sum(kind == "throttled" for kind, _ in outcomes)
    over, _ = at_once(name, holds + 10)
    causes = {cause for kind, cause in over if kind == "throttled"}
    throttled = sum(kind == "throttled" for kind, _ in over)
    rows.append(
        (
            name,
            runtime,
            environments,
            each,
            holds,
            f"{wall * 1000:.0f} ms",
            len({answer["environment"] for answer in answers}),
            max((answer["most_at_once"] for answer in answers), default=0),
            errors + early,
            f"{throttled} of {holds + 10} ({', '.join(sorted(causes)) or 'none'})",
        )
    )

head = (
    "function",
    "runtime",
    "environments",
    "concurrency each",
    "requests",
    "wall time",
    "distinct environments",
    "most at once in one",
    "errors",
    "throttled when over",
)
widths = [max(len(str(row[i])) for row in [head, *rows]) for i in range(len(head))]
print()
for row in [head, ["─" * width for width in widths], *rows]:
    print("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths)).rstrip())

tail = client.invoke(FunctionName="demo-python", Payload='{"tag": "tail"}', LogType="Tail")
print("\nthe log tail of one more invoke:")
print(base64.b64decode(tail["LogResult"]).decode().rstrip())

holds = [row[4] for row in rows]
if any(row[8] or row[6] != row[2] or row[7] != row[3] for row in rows):
    sys.exit("not every request was answered at once as it should have been")
