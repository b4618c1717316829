"""A script that asks an object in another process for what never comes: `test_remote.py` ends it from outside.

No guard stands around what it does: the other process must not do it again.
"""

from __future__ import annotations

import sys

from sparsebert.processes import Remote

remote = Remote("The other", "remote_objects:Told")
try:
    remote.make("word")
    sys.stdout.write(f"{remote.pid}\n")
    sys.stdout.flush()
    remote.call("hangs")
finally:
    remote.stop()
