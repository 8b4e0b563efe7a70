"""Who may use the phone: signatures of adb's keys, in plain integers.

Source: AOSP, packages/modules/adb/protocol.txt (AUTH) and libcrypto_utils/android_pubkey.cpp (the keys' format);
RFC 8017, 9.2 (the padding).
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import struct
import threading
from dataclasses import dataclass
from pathlib import Path

from edge_sdk.testing._adb_wire import AUTH, Link

TOKEN, SIGNATURE, PUBLIC_KEY = 1, 2, 3
TOKEN_BYTES = 20
_WORDS = 64
_KEY_BYTES = 4 * _WORDS
_KEY = struct.Struct(f"<II{_KEY_BYTES}s{_KEY_BYTES}sI")
_SHA1_PREFIX = bytes.fromhex("3021300906052b0e03021a05000414")


@dataclass(frozen=True)
class Key:
    """An RSA-2048 public key."""

    modulus: int
    exponent: int

    @classmethod
    def parse(cls, line: bytes) -> Key | None:
        """A key as adb writes it, ``BASE64 NAME``; None where it is none."""
        words = line.rstrip(b"\0").split()
        try:
            data = base64.b64decode(words[0], validate=True)
            count, _, modulus, _, exponent = _KEY.unpack(data)
        except (IndexError, binascii.Error, struct.error):
            return None
        return cls(int.from_bytes(modulus, "little"), exponent) if count == _WORDS else None

    def signed(self, token: bytes, signature: bytes) -> bool:
        """Whether the signature is this key's for the token, which stands where a SHA-1 digest would."""
        if len(signature) != _KEY_BYTES:
            return False
        padding = b"\xff" * (_KEY_BYTES - 3 - len(_SHA1_PREFIX) - len(token))
        expected = b"\0\1" + padding + b"\0" + _SHA1_PREFIX + token
        found = pow(int.from_bytes(signature, "big"), self.exponent, self.modulus)
        return hmac.compare_digest(found.to_bytes(_KEY_BYTES, "big"), expected)


class Doorkeeper:
    """Lets adb servers in by their keys.

    Args:
        path: The file of known keys, one a line, as Android keeps it.
        says_yes: Whether the user of the phone allows a key that is not known, and for ever.
    """

    def __init__(self, path: Path, says_yes: bool) -> None:
        self._path = path
        self._says_yes = says_yes
        self._tokens: dict[Link, bytes] = {}
        self._asking: dict[Link, bytes] = {}
        self._lock = threading.RLock()

    def admit(self, link: Link, kind: int, payload: bytes) -> bool:
        """Answers an AUTH packet; ``kind`` 0 is the first packet. Tells whether the link is let in."""
        with self._lock:
            if kind == SIGNATURE:
                token = self._tokens.pop(link, b"")
                if token and any(key.signed(token, payload) for key in self._known()):
                    return True
            elif kind == PUBLIC_KEY:
                if Key.parse(payload) is None:
                    return False
                if self._says_yes:
                    self._remember(payload)
                    return True
                self._asking[link] = payload
                return False
            token = self._tokens[link] = os.urandom(TOKEN_BYTES)
        link.send(AUTH, TOKEN, 0, token)
        return False

    def forget(self, link: Link) -> None:
        """The link is gone."""
        with self._lock:
            self._tokens.pop(link, None)
            self._asking.pop(link, None)

    def allow(self) -> None:
        """The user says yes, to who is asking and to who will."""
        with self._lock:
            self._says_yes = True
            asking, self._asking = self._asking, {}
            for key in asking.values():
                self._remember(key)
        for link in asking:
            link.greet()

    def refuse(self) -> None:
        """The user revokes all keys and says yes to none."""
        with self._lock:
            self._says_yes = False
            self._path.unlink(missing_ok=True)

    def _known(self) -> list[Key]:
        lines = self._path.read_bytes().splitlines() if self._path.exists() else []
        return [key for line in lines if (key := Key.parse(line))]

    def _remember(self, line: bytes) -> None:
        with open(self._path, "ab") as file:
            file.write(line.rstrip(b"\0").strip() + b"\n")
