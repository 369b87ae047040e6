"""Loaded into the pytest that runs moto's tests: a deadline for each, the installed runtime, a report to read."""

import json
import os
import signal

import pytest

DEADLINE_SECONDS = int(os.environ["MOTO_SUITE_DEADLINE"])
RESULTS = {}


def pytest_configure(config):
    # moto's tests take the newest runtime; what is installed here is python3.13. Before any test module copies it.
    from tests.test_awslambda import utilities

    utilities.PYTHON_VERSION = os.environ["MOTO_SUITE_RUNTIME"]


def pytest_collection_modifyitems(items):
    part, parts = (int(number) for number in os.environ["MOTO_SUITE_PART"].split("/"))
    # A class shares one server state, so its tests stay together.
    groups = {}
    for item in items:
        groups.setdefault(item.nodeid.rsplit("::", 1)[0] if item.cls else item.nodeid, []).append(item)
    items[:] = [item for group in list(groups.values())[part::parts] for item in group]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Some of moto's tests ask again until they get the answer they want. An alarm ends them."""

    def ring(*_):
        raise TimeoutError(f"longer than {DEADLINE_SECONDS} s")

    signal.signal(signal.SIGALRM, ring)
    signal.alarm(DEADLINE_SECONDS)
    try:
        return (yield)
    finally:
        signal.alarm(0)


def pytest_runtest_logreport(report):
    before = RESULTS.get(report.nodeid)
    if report.outcome == "passed" and before is None and report.when == "call":
        RESULTS[report.nodeid] = ("passed", "", report.duration)
    elif report.outcome == "skipped" and before is None:
        # xfail is moto's own word for a test that may fail.
        RESULTS[report.nodeid] = ("skipped", "", report.duration)
    elif report.outcome == "failed":
        text = str(getattr(getattr(report.longrepr, "reprcrash", None), "message", report.longrepr))
        RESULTS[report.nodeid] = ("failed", " ".join(text.split())[:400], report.duration)


def pytest_collectreport(report):
    if report.failed:
        RESULTS[report.nodeid] = ("failed", str(report.longrepr)[-2000:], 0)


def pytest_unconfigure():
    with open(os.environ["MOTO_SUITE_RESULTS"], "w") as out:
        json.dump(RESULTS, out)
