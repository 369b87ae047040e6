"""Session tokens with claims of the test's choosing, made as the server makes them with the secret of its data folder.

An expired session cannot be waited for. The form of a token is the server's own business: when it changes, the test that
a token made here is taken while it has not expired is the one to fail.
"""

import base64
import hmac
import json
import secrets
import time
from pathlib import Path

from botocore.credentials import Credentials

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


def code(key, message):
    return hmac.digest(key, message, "sha256")


def session(folder, account_id, expires_in_seconds, role=None):
    """Credentials of a session; `role` is {arn, id, session_name}, and without one it is the root user's."""
    secret = (Path(folder) / "session-secret").read_bytes()
    claims = {"account_id": account_id, "expires_epoch_seconds": int(time.time()) + expires_in_seconds, "ends_with_server": False}
    # The root user's sessions end with the key they were made with; this one is always there.
    claims |= {"role": role} if role else {"access_key_id": "test"}
    payload = json.dumps({"claims": claims, "nonce": secrets.randbits(63)}).encode()
    its_code = code(code(secret, b"token"), payload)
    key = "ASIA" + "".join(LETTERS[byte & 31] for byte in code(code(secret, b"id"), its_code)[:16])
    token = base64.urlsafe_b64encode(its_code + payload).rstrip(b"=").decode()
    return Credentials(key, base64.b64encode(code(code(secret, b"secret"), key.encode())[:30]).decode(), token)
