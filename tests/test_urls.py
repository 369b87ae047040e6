"""Function URLs: functions as web servers, by host and by path, for whoever their policy lets in."""

import base64
import http.client
import json
from urllib.parse import urlsplit

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from conftest import ACCOUNT, Server
from on_demand import create, meeting

ECHO = """
def handler(event, context):
    return event
"""
SAYS = """
import json
def handler(event, context):
    answer = json.loads(event["body"])
    if answer == "fail":
        raise ValueError("no")
    return answer
"""
HTTP_NODE = """
export const handler = awslambda.streamifyResponse(async (event, stream) => {
  const asked = JSON.parse(event.body);
  const out = asked.head ? awslambda.HttpResponseStream.from(stream, asked.head) : stream;
  for (const part of asked.parts) {
    if (part.gate) await fetch(part.gate);
    else if (part.fail) throw new Error(part.fail);
    else out.write(part);
  }
  out.end();
});
"""


def url_of(server, name, auth="NONE", qualifier=None, open_to_all=True, **settings):
    qualifier = {"Qualifier": qualifier} if qualifier else {}
    url = server.client.create_function_url_config(FunctionName=name, AuthType=auth, **qualifier, **settings)["FunctionUrl"]
    if auth == "NONE" and open_to_all:
        server.client.add_permission(FunctionName=name, StatementId="url", Action="lambda:InvokeFunctionUrl", Principal="*", FunctionUrlAuthType="NONE", **qualifier)
        server.client.add_permission(FunctionName=name, StatementId="by", Action="lambda:InvokeFunction", Principal="*", InvokedViaFunctionUrl=True, **qualifier)
    return url


def ask(server, url, method="GET", path="", body=None, headers=None, host=None):
    """(status, headers, body); a host of its own goes to the same server."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    headers = dict(headers or {})
    if host:
        headers["Host"] = host
    try:
        connection.request(method, (parts.path if not host else "/") + path, body=body, headers=headers)
    except BrokenPipeError:
        pass  # What is refused before it is read whole has its answer all the same.
    answer = connection.getresponse()
    read = answer.read()
    connection.close()
    return answer.status, answer.headers, read


@pytest.fixture(scope="module")
def urls(server):
    create(server, "echo", {"app.py": ECHO})
    create(server, "says", {"app.py": SAYS})
    server.says, server.echo = url_of(server, "says"), url_of(server, "echo")
    return server


def says(server, answer, **settings):
    return ask(server, server.says, "POST", body=json.dumps(answer), headers={"content-type": "application/json"} | settings)


def test_the_address_is_of_the_kind_the_server_was_reached_by(urls):
    assert urls.echo.startswith(f"http://127.0.0.1:{urls.port}/_ondol/url/") and urls.echo.endswith("/")
    import boto3

    named = boto3.client("lambda", endpoint_url=f"http://localhost:{urls.port}", region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test")
    url = named.get_function_url_config(FunctionName="echo")["FunctionUrl"]
    identity = urls.echo.rstrip("/").rsplit("/", 1)[1]
    assert url == f"http://{identity}.lambda-url.us-east-1.localhost:{urls.port}/"


def test_a_request_comes_as_payload_2_0(urls):
    identity = urls.echo.rstrip("/").rsplit("/", 1)[1]
    host = f"{identity}.lambda-url.us-east-1.on.aws"
    headers = {"Cookie": "a=1; b=2", "X-Weird": "With CaPs", "content-type": "application/json", "User-Agent": "ours"}
    status, answered, body = ask(urls, urls.echo, "POST", path="pa%2Fth/1?q=x&q=%2Fbar&empty=", body='{"foo": "bar"}', headers=headers, host=host)
    event = json.loads(body)
    assert (status, answered["content-type"]) == (200, "application/json")
    assert answered["x-amzn-requestid"] == event["requestContext"]["requestId"]
    context = event.pop("requestContext")
    sent = event.pop("headers")
    assert event == {
        "version": "2.0", "routeKey": "$default", "rawPath": "/pa%2Fth/1", "rawQueryString": "q=x&q=%2Fbar&empty=",
        "cookies": ["a=1", "b=2"], "queryStringParameters": {"q": "x,/bar", "empty": ""}, "body": '{"foo": "bar"}', "isBase64Encoded": False,
    }  # fmt: skip
    assert context["http"] == {"method": "POST", "path": "/pa%2Fth/1", "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1", "userAgent": "ours"}
    assert (context["accountId"], context["apiId"], context["domainName"], context["domainPrefix"]) == ("anonymous", identity, host, identity)
    assert context["routeKey"] == context["stage"] == "$default" and isinstance(context["timeEpoch"], int) and context["time"].endswith(" +0000")
    assert sent["x-weird"] == "With CaPs" and sent["host"] == host and sent["x-forwarded-for"] == "127.0.0.1" and sent["x-forwarded-proto"] == "http"
    assert "cookie" not in sent and sent["x-amzn-trace-id"].startswith("Root=1-")


def test_bodies_are_text_or_base64(urls):
    for kind, body, is_base64 in [("text/plain", b"plain", False), ("image/png", b"\x89PNG", True), (None, b"bare", True), ("application/x-www-form-urlencoded", b"a=b", True)]:
        event = json.loads(ask(urls, urls.echo, "POST", body=body, headers={"content-type": kind} if kind else {})[2])
        told = base64.b64decode(event["body"]) if is_base64 else event["body"].encode()
        assert (told, event["isBase64Encoded"]) == (body, is_base64), kind
    event = json.loads(ask(urls, urls.echo)[2])
    assert "body" not in event and event["isBase64Encoded"] is False and event["rawPath"] == "/" and "queryStringParameters" not in event


@pytest.mark.parametrize(
    "answer, body",
    [
        ({"hello": "world"}, b'{"hello":"world"}'),
        ({"statusCode": 200, "body": "body123"}, b"body123"),
        ({"statusCode": 200, "body": '{"hello": "world"}'}, b'{"hello": "world"}'),
        (["hello", 3, True], b'["hello",3,true]'),
        ("hello", b"hello"),
        (3.1, b"3.1"),
        (True, b"true"),
        ({"statusCode": "200", "body": "aGk=", "isBase64Encoded": True}, b"hi"),
    ],
)
def test_what_is_answered_is_understood_as_on_aws(urls, answer, body):
    status, headers, answered = says(urls, answer)
    assert (status, headers["content-type"], answered) == (200, "application/json", body)


def test_status_headers_and_cookies_are_the_functions(urls):
    answer = {"statusCode": 418, "headers": {"Content-Type": "text/plain", "X-Own": 7, "Content-Length": "99"}, "cookies": ["a=1; Secure", "b=2"], "body": "tea"}
    status, headers, body = says(urls, answer)
    assert (status, body, headers["content-type"], headers["x-own"]) == (418, b"tea", "text/plain", "7")
    assert headers.get_all("set-cookie") == ["a=1; Secure", "b=2"]
    assert headers["content-length"] == "3" and headers["x-amzn-remapped-content-length"] == "99"


@pytest.mark.parametrize("answer", ["fail", {"statusCode": "odd"}, {"statusCode": 99}, {"statusCode": 200, "headers": ["x"]}, {"statusCode": 200, "headers": {"bad name": "x"}}])
def test_what_fails_is_a_bad_gateway_and_says_no_more(urls, answer):
    status, headers, body = says(urls, answer)
    assert (status, body) == (502, b"Internal Server Error")


def test_who_may_not_is_refused(urls):
    create(urls, "closed", {"app.py": ECHO})
    url = url_of(urls, "closed", open_to_all=False)
    status, headers, body = ask(urls, url)
    assert (status, headers["x-amzn-errortype"]) == (403, "AccessDeniedException")
    assert json.loads(body)["Message"].startswith("Forbidden. For troubleshooting Function URL authorization issues")
    urls.client.add_permission(FunctionName="closed", StatementId="url", Action="lambda:InvokeFunctionUrl", Principal="*", FunctionUrlAuthType="NONE")
    assert ask(urls, url)[0] == 403, "one permission of two"
    urls.client.add_permission(FunctionName="closed", StatementId="by", Action="lambda:InvokeFunction", Principal="*", InvokedViaFunctionUrl=True)
    assert ask(urls, url)[0] == 200
    unknown = url.replace(url.rstrip("/").rsplit("/", 1)[1], "a" * 32)
    status, headers, body = ask(urls, unknown)
    assert (status, json.loads(body), headers["x-amzn-errortype"]) == (403, {"Message": None}, "AccessDeniedException")
    urls.client.delete_function_url_config(FunctionName="closed")
    assert json.loads(ask(urls, url)[2]) == {"Message": None}


def signed(server, url, key="test", secret="test", **settings):
    request = AWSRequest("GET", url, headers=settings)
    SigV4Auth(Credentials(key, secret), "lambda", "us-east-1").add_auth(request)
    return ask(server, url, headers=dict(request.headers.items()))


def test_signed_urls_know_who_asks(urls):
    create(urls, "signed", {"app.py": ECHO})
    url = url_of(urls, "signed", auth="AWS_IAM")
    assert json.loads(ask(urls, url)[2]) == {"Message": "Forbidden"}
    assert signed(urls, url, secret="wrong")[0] == 403
    status, _, body = signed(urls, url)
    context = json.loads(body)["requestContext"]
    assert status == 200 and context["accountId"] == ACCOUNT
    assert context["authorizer"]["iam"]["userArn"] == f"arn:aws:iam::{ACCOUNT}:root" and context["authorizer"]["iam"]["accessKey"] == "test"


def test_an_alias_has_an_address_of_its_own(urls):
    urls.client.publish_version(FunctionName="echo")
    urls.client.create_alias(FunctionName="echo", Name="live", FunctionVersion="1")
    url = url_of(urls, "echo", qualifier="live")
    assert url != urls.echo and ask(urls, url)[0] == 200
    urls.client.delete_alias(FunctionName="echo", Name="live")
    assert ask(urls, url)[0] == 403


def test_throttles_are_told(urls):
    create(urls, "throttled", {"app.py": ECHO})
    url = url_of(urls, "throttled")
    urls.client.put_function_concurrency(FunctionName="throttled", ReservedConcurrentExecutions=0)
    status, headers, body = ask(urls, url)
    assert (status, json.loads(body), headers["x-amzn-errortype"]) == (429, {"Message": "Rate Exceeded."}, "TooManyRequestsException")


def test_browsers_are_told_what_they_may(urls):
    create(urls, "cors", {"app.py": ECHO})
    cors = {"AllowOrigins": ["https://app.example"], "AllowMethods": ["GET", "POST"], "AllowHeaders": ["x-own"], "ExposeHeaders": ["x-seen"], "MaxAge": 60, "AllowCredentials": True}
    url = url_of(urls, "cors", Cors=cors)
    asking = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    status, headers, body = ask(urls, url, "OPTIONS", headers=asking)
    assert (status, body) == (200, b"")
    assert {name: headers[f"access-control-{name}"] for name in ("allow-origin", "allow-methods", "allow-headers", "max-age", "allow-credentials")} == {
        "allow-origin": "https://app.example", "allow-methods": "GET,POST", "allow-headers": "x-own", "max-age": "60", "allow-credentials": "true",
    }  # fmt: skip
    status, headers, body = ask(urls, url, headers={"Origin": "https://app.example"})
    assert (status, headers["access-control-allow-origin"], headers["access-control-expose-headers"], headers["vary"]) == (200, "https://app.example", "x-seen", "Origin")
    status, headers, body = ask(urls, url, headers={"Origin": "https://evil.example"})
    assert status == 200 and "access-control-allow-origin" not in headers
    # Without settings the function answers itself.
    assert json.loads(ask(urls, urls.echo, "OPTIONS", headers=asking)[2])["requestContext"]["http"]["method"] == "OPTIONS"


def test_a_request_has_a_largest_size(urls):
    assert ask(urls, urls.echo, "POST", body=b"x" * 6_400_000)[0] == 413


def test_streams_have_a_head_and_come_as_they_are_written(urls):
    create(urls, "web", {"index.mjs": HTTP_NODE}, runtime="nodejs24.x", handler="index.handler")
    url = url_of(urls, "web", InvokeMode="RESPONSE_STREAM")
    head = {"statusCode": 201, "headers": {"content-type": "text/html", "x-own": "yes"}, "cookies": ["a=1"]}
    with meeting() as gate:
        connection = http.client.HTTPConnection("127.0.0.1", urls.port, timeout=30)
        connection.request("POST", urlsplit(url).path, body=json.dumps({"head": head, "parts": ["<p>one", {"gate": gate.at("x")}, "<p>two"]}), headers={"content-type": "application/json"})
        answer = connection.getresponse()
        assert (answer.status, answer.headers["content-type"], answer.headers["x-own"], answer.headers["set-cookie"]) == (201, "text/html", "yes", "a=1")
        assert answer.read(6) == b"<p>one"
        gate.wait_for(1)
        gate.open.set()
        assert answer.read() == b"<p>two"
        connection.close()
    status, headers, body = ask(urls, url, "POST", body=json.dumps({"parts": ["plain"]}), headers={"content-type": "application/json"})
    assert (status, headers["content-type"], body) == (200, "application/octet-stream", b"plain")
    status, headers, body = ask(urls, url, "POST", body=json.dumps({"parts": ["half", {"fail": "x"}]}), headers={"content-type": "application/json"})
    assert (status, body) == (200, b"half")


def test_a_function_that_answers_whole_is_not_understood_by_a_streaming_url(urls):
    create(urls, "wholly", {"app.py": SAYS})
    url = url_of(urls, "wholly", InvokeMode="RESPONSE_STREAM")
    status, _, body = ask(urls, url, "POST", body=json.dumps({"statusCode": 418, "body": "x"}), headers={"content-type": "application/json"})
    assert status == 200 and json.loads(body) == {"statusCode": 418, "body": "x"}


def test_addresses_outlive_the_server():
    server = Server()
    try:
        create(server, "stays", {"app.py": ECHO})
        path = urlsplit(url_of(server, "stays")).path
        server.stop()
        server.start()
        assert ask(server, server.url + path)[0] == 200
    finally:
        server.remove()
