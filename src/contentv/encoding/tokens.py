"""Tokens that a trainer shows to encode servers: a name and an expiry, signed with a shared key."""

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import time
from datetime import UTC, datetime

from contentv.base.errors import UserError

_MAX_LENGTH = 1024


def new_key() -> str:
    """Make a fresh key, as text."""
    return secrets.token_hex(32)


def make_token(key: str, name: str, *, seconds: float) -> str:
    """Sign a token for `name` that is good for so long from now."""
    claims = json.dumps({"name": name, "expires": int(time.time() + seconds)})
    body = base64.urlsafe_b64encode(claims.encode()).decode()
    return f"{body}.{_signature(key, body)}"


def check_token(key: str, token: str) -> str:
    """Give the name a token was made for; UserError when it is not ours, or has expired."""
    body, _, signature = token.partition(".")
    genuine = hmac.compare_digest(_signature(key, body).encode(), signature.encode())
    if len(token) > _MAX_LENGTH or not genuine:
        raise UserError("the token is not signed with this server's key")
    try:
        claims = json.loads(base64.urlsafe_b64decode(body))
        name, expires = str(claims["name"]), float(claims["expires"])
    except (binascii.Error, KeyError, TypeError, ValueError) as error:
        raise UserError("the token is damaged") from error
    if time.time() >= expires:
        when = datetime.fromtimestamp(expires, UTC)
        raise UserError(f"the token expired at {when:%F %T} UTC; `contentv serve certs` makes new")
    return name


def _signature(key: str, body: str) -> str:
    return hmac.new(key.encode(), body.encode(), hashlib.sha256).hexdigest()
