"""Lambda (default) functions change: code and configuration under load, numbered versions, aliases and their weights."""

import json

from conftest import ACCOUNT, zip_of
from on_demand import DOES, LATEST, create, environments, invoke_at, meeting, together
from test_api import fault

ARN = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:"


def says(word):
    """Code that answers with its word, and goes to the meeting if it is asked to."""
    return {"app.py": DOES.replace("return process", f"return {word!r}")}


def update(server, name, word, **settings):
    answer = server.client.update_function_code(FunctionName=name, ZipFile=zip_of(says(word)), **settings)
    server.settled(name, LATEST)
    return answer


def executed(server, name, **settings):
    """(the version that ran, what it answered)"""
    answer = server.client.invoke(FunctionName=name, **settings)
    assert "FunctionError" not in answer
    return answer["ExecutedVersion"], json.load(answer["Payload"])


def test_what_is_in_flight_finishes_on_the_old_code(server):
    create(server, "code", says("old"))
    with meeting() as place, together(3) as pool:
        calls = [pool.submit(invoke_at, server, "code", place, f"{n}") for n in range(3)]
        place.wait_for(3)
        update(server, "code", "new")
        assert server.invoke("code") == (None, "new"), "while the old ones still run"
        place.open.set()
        assert [call.result() for call in calls] == [(None, "old")] * 3
    assert {server.invoke("code")[1] for _ in range(20)} == {"new"}


def test_an_update_fails_nobody_who_waits_for_a_start(server):
    with meeting() as place, together(1) as pool:
        slow = f"import urllib.request\nurllib.request.urlopen({place.at('start')!r}).read()\n"
        create(server, "starting", {"app.py": slow + DOES.replace("return process", "return 'old'")})
        call = pool.submit(server.invoke, "starting")
        place.wait_for(1)
        update(server, "starting", "new")
        assert server.invoke("starting") == (None, "new")
        place.open.set()
        error, answer = call.result()
    assert error is None and answer in ("old", "new")


def test_no_request_fails_while_code_changes_again_and_again(server):
    create(server, "changing", says("0"))
    with together(4) as pool:
        running = True

        def ask():
            seen = []
            while running:
                seen.append(server.invoke("changing"))
            return seen

        callers = [pool.submit(ask) for _ in range(3)]
        try:
            for n in range(1, 6):
                update(server, "changing", str(n))
                assert server.invoke("changing") == (None, str(n))
        finally:
            running = False
        for caller in callers:
            answers = caller.result()
            assert [error for error, _ in answers if error] == []
            words = [int(word) for _, word in answers]
            assert words == sorted(words), "the new code answered, and then the old one again"


def test_configuration_changes_take_effect_and_leave_running_ones_alone(server):
    create(server, "configured", Environment={"Variables": {"COLOUR": "red"}})
    with meeting() as place, together(1) as pool:
        call = pool.submit(invoke_at, server, "configured", place, "old", environment=True)
        place.wait_for(1)
        server.client.update_function_configuration(FunctionName="configured", Environment={"Variables": {"COLOUR": "blue"}}, MemorySize=256)
        server.settled("configured", LATEST)
        new = server.invoke("configured", {"environment": True})[1]
        place.open.set()
        old = call.result()[1]
    of = lambda seen: (seen["COLOUR"], seen["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"])
    assert (of(old), of(new)) == (("red", "128"), ("blue", "256"))


def test_numbered_versions_stay_as_they_were(server):
    create(server, "numbered", says("one"))
    assert server.client.publish_version(FunctionName="numbered", Description="the first")["Version"] == "1"
    assert server.settled("numbered", "1")["State"] == "Active"
    assert update(server, "numbered", "two", Publish=True)["Version"] == "2"
    update(server, "numbered", "latest")
    assert server.client.get_function_configuration(FunctionName="numbered", Qualifier="1")["Description"] == "the first"
    for name, settings, answer in [
        ("numbered", {}, (LATEST, "latest")),
        ("numbered", {"Qualifier": LATEST}, (LATEST, "latest")),
        ("numbered:$LATEST", {}, (LATEST, "latest")),
        ("numbered", {"Qualifier": "1"}, ("1", "one")),
        ("numbered:2", {}, ("2", "two")),
        (ARN + "numbered:1", {}, ("1", "one")),
    ]:
        assert executed(server, name, **settings) == answer, name
    seen = server.invoke("numbered:1", {"environment": True})[1]
    assert seen["AWS_LAMBDA_FUNCTION_VERSION"] == "1" and "[1]" in seen["AWS_LAMBDA_LOG_STREAM_NAME"]
    assert fault(server.invoke, "numbered:3") == ("ResourceNotFoundException", f"Function not found: {ARN}numbered:3", 404)
    assert server.client.delete_function(FunctionName="numbered", Qualifier="1")["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert fault(server.invoke, "numbered:1")[0] == "ResourceNotFoundException"
    assert executed(server, "numbered:2") == ("2", "two")


def test_an_alias_is_followed_wherever_it_points(server):
    create(server, "aliased", says("one"), Publish=True)
    update(server, "aliased", "two", Publish=True)
    server.client.create_alias(FunctionName="aliased", Name="live", FunctionVersion="1")
    assert executed(server, "aliased", Qualifier="live") == ("1", "one")
    server.client.update_alias(FunctionName="aliased", Name="live", FunctionVersion="2")
    assert executed(server, "aliased:live") == ("2", "two")
    server.client.update_alias(FunctionName="aliased", Name="live", FunctionVersion=LATEST)
    assert executed(server, ARN + "aliased:live") == (LATEST, "two")
    server.client.delete_alias(FunctionName="aliased", Name="live")
    assert fault(server.invoke, "aliased:live")[:2] == ("ResourceNotFoundException", f"Function not found: {ARN}aliased:live")


def test_code_sees_the_name_it_was_asked_by(server):
    create(server, "named", {"app.py": "def handler(event, context):\n    return [context.invoked_function_arn, context.function_version]\n"}, Publish=True)
    server.client.create_alias(FunctionName="named", Name="live", FunctionVersion="1")
    for asked, seen in {"": [ARN + "named", LATEST], ":1": [ARN + "named:1", "1"], ":live": [ARN + "named:live", "1"]}.items():
        assert server.invoke("named" + asked) == (None, seen)


def test_weights_divide_the_requests(server):
    create(server, "weighted", says("1"), Publish=True)
    update(server, "weighted", "2", Publish=True)
    server.client.create_alias(FunctionName="weighted", Name="live", FunctionVersion="1", RoutingConfig={"AdditionalVersionWeights": {"2": 0.3}})
    with together(4) as pool:
        answers = list(pool.map(lambda _: executed(server, "weighted:live"), range(400)))
    assert all(version == word for version, word in answers), "the header names the version that ran"
    # 120 are expected, the standard deviation is 9.2: seven of them are left on either side.
    other = [version for version, _ in answers].count("2")
    assert 55 < other < 185, other
    for weight, all_go_to in ((0.0, "1"), (1.0, "2")):
        server.client.update_alias(FunctionName="weighted", Name="live", RoutingConfig={"AdditionalVersionWeights": {"2": weight}})
        assert {executed(server, "weighted:live")[0] for _ in range(30)} == {all_go_to}
    server.client.update_alias(FunctionName="weighted", Name="live", RoutingConfig={})
    assert {executed(server, "weighted:live")[0] for _ in range(30)} == {"1"}


def test_a_dry_run_starts_nothing(server):
    create(server, "dry")
    answer = server.client.invoke(FunctionName="dry", InvocationType="DryRun")
    assert answer["StatusCode"] == 204 and answer["Payload"].read() == b""
    assert environments(server, "dry") == []
    assert fault(server.client.invoke, FunctionName="dry-not-there", InvocationType="DryRun")[0] == "ResourceNotFoundException"
