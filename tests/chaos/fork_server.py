"""What the fork server imports once, so that every worker process starts at once, with the real litellm.

Sound because none of it leaves a thread or a connection behind: `core.llm.client.load` promises that, and a test holds it to it.
"""

import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from core.llm.client import load
from tests.chaos import worker_main

load()
main = worker_main.main


def look_around(sender: "Connection[Any, Any]") -> None:
    """Tells what a new process begins with."""
    mine = {target.readlink().name for target in Path("/proc/self/fd").iterdir() if target.is_symlink()}
    inet = [line.split() for kind in ("tcp", "tcp6", "udp", "udp6") for line in Path(f"/proc/self/net/{kind}").read_text().splitlines()[1:]]
    sockets = [line for line in inet if f"socket:[{line[9]}]" in mine]
    sender.send({"litellm": "litellm" in sys.modules, "threads": threading.active_count(), "inet sockets": len(sockets)})
