"""A courier: a job that leaves places in the object store, says with what they can be written to, and ends at once.

What an ended job has left can be read by address, and overwritten with its token, for as long as that is good: so its
outputs carry large messages between a client and its warm workers (remote/depot.py, transports/warm/places.py). The
token goes into the first place, encrypted and signed with the run's key.
"""

import os

from . import wire

PURPOSE = "courier"


def leave_places(job):
    """Write the places: the token into the first one, a byte into each of the others."""
    text = seal(os.environ["PROMINENCE_TOKEN"], bytes.fromhex(job["key"]))
    for number, name in enumerate(job["courier"]):
        with open(name, "w") as file:
            file.write("\n" if number else text)


def seal(token, key):
    # type: (str, bytes) -> str
    """Return a token as a message that only who has the key can read, or make."""
    nonce = os.urandom(16)
    hidden = _masked(token.encode("utf-8"), nonce, key)
    return wire.sign({"nonce": nonce.hex(), "token": hidden.hex()}, b"", key, PURPOSE)


def unseal(text, key):
    # type: (str, bytes) -> str
    """Return the token in such a message; ValueError: it is not signed with this key."""
    header, _ = wire.verify(text, key, PURPOSE)
    return _masked(bytes.fromhex(header["token"]), bytes.fromhex(header["nonce"]), key).decode("utf-8")


def _masked(content, nonce, key):
    # type: (bytes, bytes, bytes) -> bytes
    """Return the content under a mask that the key gives for this nonce; done twice, it is as it was."""
    mask = b""
    while len(mask) < len(content):
        mask += wire.mac_of(key, b"mask %d\n" % len(mask) + nonce)
    return bytes(byte ^ mask[at] for at, byte in enumerate(content))
