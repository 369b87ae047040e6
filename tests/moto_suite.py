"""moto's own tests of Lambda, from its source package, against Ondol.

    ONDOL_BIN=target/release/ondol python tests/moto_suite.py [-k EXPRESSION] [--parts N] [--all-failures]

Needs these packages (xtask prepares them; nothing else has to be named, moto brings the rest):
    boto3 of models/VERSION, pytest==8.4.2, moto[server]==5.2.5, freezegun==1.5.5
and `pip download` of the source package of moto 5.2.5, which it keeps in the cache folder.

moto runs its tests against any server (TEST_SERVER_MODE). A small proxy (moto/proxy.py) stands there: Lambda, IAM and
STS go to Ondol, everything else to a moto server. moto/expected.toml names the tests that are not expected to pass,
each with a reason. The run fails when another test fails, and when one of those passes: the table stays true.
"""

import argparse
import json
import logging
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
MOTO = "5.2.5"
DEADLINE_SECONDS = 25
RUNTIME = "python3.13"
REASONS = (
    "tests moto itself",
    "needs docker",
    "a service of this account Ondol does not serve",
    "unsupported here: ",
    "moto differs from AWS: ",
    "bug: ",  # Ondol's, until it is mended
)


def source():
    """The folder with moto's tests, without its code: that is the installed package's."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ondol" / f"moto-tests-{MOTO}"
    if not cache.is_dir():
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache.parent) as folder:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-binary", "moto"]
            subprocess.run([*command, "--dest", folder, f"moto=={MOTO}"], check=True)
            with tarfile.open(next(Path(folder).glob("moto-*.tar.gz"))) as archive:
                wanted = [m for m in archive.getmembers() if m.name.startswith(f"moto-{MOTO}/tests/") or m.name == f"moto-{MOTO}/setup.cfg"]
                archive.extractall(folder, wanted, filter="data")
            try:
                (Path(folder) / f"moto-{MOTO}").rename(cache)
            except OSError:
                assert cache.is_dir(), "another run made it first, or nobody can"
    return cache


def expected():
    """{test: reason}, and every reason is one of the set."""
    found = {}
    for entry in tomllib.loads((HERE / "moto/expected.toml").read_text())["not_expected"]:
        reason = entry["reason"]
        told = any(reason == known or (known.endswith(": ") and reason.startswith(known) and reason != known) for known in REASONS)
        assert told, f"no such reason: {reason}"
        for test in entry["tests"]:
            assert test not in found, f"{test} is listed twice"
            found[test] = reason
    return found


def part(number, arguments):
    """One proxy, one moto server, its own Ondols, and every Nth test."""
    sys.path.insert(0, str(HERE / "moto"))
    from moto.server import ThreadedMotoServer
    from ondols import Ondols
    from proxy import Proxy

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    port = server.get_host_and_port()[1]
    moto = f"http://127.0.0.1:{port}"
    ondols = Ondols(os.environ["ONDOL_BIN"], {name: moto for name in ("s3", "sqs", "sns", "kinesis", "dynamodb", "dynamodbstreams")})
    try:
        proxy = Proxy(ondols, port, moto_alone=arguments.moto_alone)
        environment = {
            "TEST_SERVER_MODE": "true",
            "TEST_SERVER_MODE_ENDPOINT": f"http://127.0.0.1:{proxy.server_address[1]}",
            "AWS_ACCESS_KEY_ID": "FOOBARKEY",
            "AWS_SECRET_ACCESS_KEY": "FOOBARSECRET",
            "AWS_EC2_METADATA_DISABLED": "true",
            "MOTO_SUITE_PART": f"{number}/{arguments.parts}",
            "MOTO_SUITE_DEADLINE": str(DEADLINE_SECONDS),
            "MOTO_SUITE_RUNTIME": RUNTIME,
            "MOTO_SUITE_RESULTS": arguments.results,
            "PYTHONPATH": os.pathsep.join((str(source()), str(HERE / "moto"))),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
            os.environ.pop(name, None)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "plugin", "-p", "no:cacheprovider", "tests/test_awslambda"]
        if arguments.k:
            command += ["-k", arguments.k]
        with open(arguments.results + ".log", "w") as log:
            subprocess.run(command, cwd=source(), env=os.environ | environment, stdout=log, stderr=subprocess.STDOUT)
    finally:
        ondols.reset()
        server.stop()


def judge(results, table, whole, everything):
    """Prints what differs from the table; gives whether anything does."""
    wrong = []
    counts = {"passed": 0, "skipped": 0, "failed": 0}
    reasons = {}
    short = {name.removeprefix("tests/test_awslambda/"): result for name, result in results.items()}
    for test, (outcome, text, _) in sorted(short.items()):
        counts[outcome] += 1
        if outcome == "failed" and test in table:
            reasons[table[test]] = reasons.get(table[test], 0) + 1
            if everything:
                print(f"as listed  {test}\n           {table[test]}\n           {text}")
        elif outcome == "failed":
            wrong.append(f"failed     {test}\n           {text}")
        elif test in table:
            wrong.append(f"stale      {test} {outcome}, and moto/expected.toml says: {table[test]}")
    if whole:
        wrong += [f"stale      {test} is listed, and there is no such test" for test in table if test not in short]
    for reason, count in sorted(reasons.items()):
        print(f"{count:4} not expected to pass: {reason}")
    slow = sorted(((result[2], test) for test, result in short.items()), reverse=True)[:3]
    print("slowest:", ", ".join(f"{test} {seconds:.1f} s" for seconds, test in slow))
    print("\n".join(wrong))
    print(f"moto {MOTO}: {counts['passed']} passed, {counts['skipped']} skipped by moto, {counts['failed']} failed, {len(wrong)} not as listed")
    return bool(wrong)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-k", help="pytest's expression; only these tests")
    parser.add_argument("--parts", type=int, default=4, help="how many run beside each other")
    parser.add_argument("--all-failures", action="store_true", help="show listed failures too")
    parser.add_argument("--moto-alone", action="store_true", help="ask moto only, to see what its tests say of itself; the table is not looked at")
    parser.add_argument("--part", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--results", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part is not None:
        return part(arguments.part, arguments)
    started = time.monotonic()
    source()
    sys.path.insert(0, str(HERE / "moto"))
    from ondols import Ondols

    table = {} if arguments.moto_alone else expected()
    missing = Ondols(os.environ["ONDOL_BIN"], {}).missing()
    if missing:
        print(f"this binary has no {', '.join(missing)}: much will fail")
    folder = tempfile.mkdtemp(prefix="moto-suite-")
    parts = []
    for number in range(arguments.parts):
        command = [sys.executable, __file__, "--part", str(number), "--parts", str(arguments.parts), "--results", f"{folder}/{number}"]
        command += ["-k", arguments.k] if arguments.k else []
        command += ["--moto-alone"] if arguments.moto_alone else []
        parts.append(subprocess.Popen(command))
    codes = [process.wait() for process in parts]
    results = {}
    for number, code in enumerate(codes):
        file = Path(f"{folder}/{number}")
        if code or not file.exists():
            print(Path(f"{file}.log").read_text()[-3000:] if Path(f"{file}.log").exists() else "no log")
            sys.exit(f"part {number} did not end as it should")
        results |= json.loads(file.read_text())
    assert results, "no test ran"
    wrong = judge(results, table, whole=not arguments.k, everything=arguments.all_failures)
    print(f"{time.monotonic() - started:.0f} s; the output of each part is in {folder}")
    if not wrong:
        shutil.rmtree(folder)
    sys.exit(wrong)


if __name__ == "__main__":
    main()
