"""The first program of a job that is one of an array: makes sure of the bundle, then runs it.

It travels inside the job's description, where nobody else can write; the bundle, with the runner and all calls, comes
from the object store. Standard library only, in the syntax of Python 3.8.
"""

import hashlib
import json
import os
import sys

with open("pxjob.json", "rb") as file:
    bundle = json.loads(file.read().decode("utf-8"))["bundle"]
digest = hashlib.sha256()
with open(bundle["name"], "rb") as file:
    for block in iter(lambda: file.read(1 << 20), b""):
        digest.update(block)
if digest.hexdigest() != bundle["sha256"]:
    sys.exit("prominence-executor: " + bundle["name"] + " did not arrive as it was sent (its SHA-256 differs)")
sys.stdout.flush()
os.execv(sys.executable, [sys.executable, bundle["name"]] + sys.argv[1:])  # a program of its own
