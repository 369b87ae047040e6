"""Signs random requests with botocore and prints each as a line of JSON: python botocore.py SEED COUNT"""

import base64
import io
import json
import random
import sys
import time
from urllib.parse import quote, urlsplit

from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.httpchecksum import AwsChunkedWrapper, Crc32Checksum

KEY, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
PATH = [*"aZ0-_.~!$&'()*+,;=:@", "/", "//", "/./", "/../", "%20", "%2F", "%3a", "%25", "%C3%A9", "arn%3Aaws"]
TEXT = [*"abZ09-_.~ +/?&=%!*'()", "é", "日本", "\u00a0", "tag:"]
VALUE = [*'aB ,"=;0/~', "   "]
NAMES = ["X-Amz-Meta", "x-amz-meta-b", "Content-Type", "My-Header1", "my-header2", "X-Amz-Client-Context"]
NOT_SIGNED = ["User-Agent", "X-Amzn-Trace-Id", "Expect"]

seed, count = int(sys.argv[1]), int(sys.argv[2])
chance = random.Random(seed)


def text(choices, most):
    return "".join(chance.choices(choices, k=chance.randint(0, most)))


def encoded(value):
    return quote(value, safe="-_.~")


for number in range(count):
    kind = chance.choice([SigV4Auth, SigV4Auth, SigV4QueryAuth, S3SigV4Auth, S3SigV4QueryAuth])
    s3 = kind in (S3SigV4Auth, S3SigV4QueryAuth)
    path = "/" + text(PATH, 12)
    if s3:
        # As botocore itself encodes keys; a bucket comes first, so that the path is no authority.
        path = "/bucket/" + quote(text(TEXT, 10), safe="/~")
    pairs = [(encoded(text(TEXT, 4)) or "n", encoded(text(TEXT, 6))) for _ in range(chance.randint(0, 4))]
    query = "&".join(f"{name}={value}" for name, value in pairs)
    scheme = chance.choice(["http", "https"])
    url = f"{scheme}://localhost:9000{path}" + (f"?{query}" if query else "")
    presigned = kind in (SigV4QueryAuth, S3SigV4QueryAuth)
    # What would be the body of a presigned request, botocore puts into its query.
    body = b"" if presigned else text(TEXT, 30).encode()
    request = AWSRequest(method=chance.choice(["GET", "POST", "PUT", "DELETE"]), url=url, data=body)
    for _ in range(chance.randint(0, 4)):
        request.headers.add_header(chance.choice(NAMES), text(VALUE, 8).strip())
    for name in NOT_SIGNED:
        if chance.random() < 0.2:
            request.headers[name] = "anything"
    if kind is SigV4Auth and chance.random() < 0.2:
        request.headers["Date"] = "set by the signer"
    expected = None
    if kind in (SigV4Auth, S3SigV4Auth) and scheme == "https" and chance.random() < 0.3:
        request.context["payload_signing_enabled"] = False
    elif kind is S3SigV4Auth and chance.random() < 0.3:
        # A body in chunks with a checksum after it, as `put_object` sends streams.
        request.context["checksum"] = {"request_algorithm": {"in": "trailer"}}
        wrapper = AwsChunkedWrapper(
            io.BytesIO(body), checksum_cls=Crc32Checksum, checksum_name="x-amz-checksum-crc32", chunk_size=64 * 1024
        )
        request.headers["X-Amz-Trailer"] = "x-amz-checksum-crc32"
        request.headers["X-Amz-Decoded-Content-Length"] = str(len(body))
        request.headers["Content-Encoding"] = "aws-chunked"
        expected, body = body, wrapper.read()
    token = chance.choice([None, "to/ken+with=odd%letters"])
    kind(Credentials(KEY, SECRET, token), "s3" if s3 else chance.choice(["lambda", "iam", "sts"]), "us-east-1").add_auth(request)
    parts = urlsplit(request.url)
    headers = [[name, value] for name, value in request.headers.items()]
    if not any(name.lower() == "host" for name, _ in headers):
        headers.append(["Host", parts.netloc])
    print(
        json.dumps(
            {
                "kind": kind.__name__,
                "method": request.method,
                "path": request.url.split("://", 1)[1].split("?", 1)[0][len(parts.netloc) :],
                "query": parts.query,
                "headers": headers,
                "body": base64.b64encode(body).decode(),
                "decoded": None if expected is None else base64.b64encode(expected).decode(),
                "now": int(time.time()),
            }
        )
    )
