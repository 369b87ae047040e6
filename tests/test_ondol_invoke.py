"""`ondol invoke`: one answer with what it wrote, or many with how long they took and why some were refused."""

import json
import subprocess

from conftest import BIN, EXAMPLES
from test_events import CODE

HANDLER, FILES, _ = EXAMPLES["provided.al2023"]


def ondol(server, *words, stdin=None):
    return subprocess.run([BIN, "invoke", "--port", str(server.port), *words], capture_output=True, text=True, input=stdin, timeout=60)


def test_the_answer_alone_is_on_standard_output(server, tmp_path):
    server.deploy("one", {"app.py": CODE}, concurrency=2)
    (tmp_path / "event.json").write_text('{"tag": "file"}')
    for words, stdin, tag in [
        (["--payload", str(tmp_path / "event.json")], None, "file"),
        (["--payload", "-"], '{"tag": "stdin"}', "stdin"),
        (["--data", '{"tag": "word"}'], None, "word"),
        ([], None, None),
    ]:
        done = ondol(server, "one", *words, stdin=stdin)
        assert done.returncode == 0 and json.loads(done.stdout)["tag"] == tag, done
        assert "200 by $LATEST.PUBLISHED in " in done.stderr


def test_the_log_and_the_parts_of_an_answer(server):
    server.deploy("tail", FILES, runtime="provided.al2023", handler=HANDLER, concurrency=2)
    done = ondol(server, "tail:$LATEST.PUBLISHED", "--data", '{"tag": "t", "wait_ms": 0}', "--tail")
    assert 'working on \\"t\\"' in done.stderr and "platform.report" in done.stderr
    page = json.loads(ondol(server, "tail", "--data", '{"tag": "t", "wait_ms": 0}', "--tail", "--json").stdout)
    assert (page["statusCode"], page["executedVersion"], page["functionError"]) == (200, "$LATEST.PUBLISHED", None)
    assert page["payload"]["tag"] == "t" and "working on" in page["log"] and page["durationMillis"] > 0


def test_failures_have_a_code_and_a_reason(server):
    server.deploy("failing", {"app.py": CODE}, concurrency=2)
    done = ondol(server, "failing", "--data", '{"tag": "t", "fail": 9}')
    assert done.returncode == 1 and json.loads(done.stdout)["errorType"] == "ValueError" and "error: the function failed" in done.stderr
    done = ondol(server, "nobody")
    assert done.returncode == 1 and "Function not found" in done.stderr
    done = ondol(server, "failing", "--payload", "/nowhere")
    assert done.returncode == 1 and "/nowhere" in done.stderr
    done = subprocess.run([BIN, "invoke", "--port", "1", "f"], capture_output=True, text=True)
    assert done.returncode == 3


def test_an_event_is_only_queued(server):
    server.deploy("later", {"app.py": CODE}, concurrency=2)
    done = ondol(server, "later", "--event", "--data", '{"tag": "e"}')
    assert done.returncode == 0 and done.stdout == "" and done.stderr.startswith("202 in ")


def test_many_at_once_with_a_histogram_and_causes(server):
    server.deploy("many", FILES, runtime="provided.al2023", handler=HANDLER, concurrency=2)
    words = ["many", "--data", '{"tag": 1, "wait_ms": 100}', "--concurrency", "20", "--requests", "60"]
    page = json.loads(ondol(server, *words, "--json").stdout)
    # Three environments of two: six at once, and fourteen refused.
    assert page["answered"] + page["throttled"] == page["requests"] == 60 and page["failed"] == page["functionErrors"] == 0
    assert page["throttled"] > 0 and page["throttledByCause"] == {"concurrency": page["throttled"]}
    assert sum(row["count"] for row in page["histogram"]) == page["answered"] >= 6
    assert 100 <= page["latencyMillis"]["min"] <= page["latencyMillis"]["p50"] <= page["latencyMillis"]["max"]
    text = ondol(server, *words).stdout
    assert "60 requests in " in text and "throttled, concurrency: " in text and "milliseconds: p50 " in text and "█" in text
