"""A program that is `onethread` for those who start one themselves, such as other people's MCP clients: see `forking.program`.

It starts in a fiftieth of the time, has the process forked that does the work, on its own streams, hands signals on to it, and ends as
it ends. It must import next to nothing, so it stands apart.
"""

import json
import os
import signal
import socket
import sys

_PID_BYTES = 4
_HANDED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _main(path: str, *arguments: str) -> int:
    request = {"arguments": arguments, "env": dict(os.environ), "cwd": os.getcwd(), "demo": {}}  # noqa: PTH109  # pathlib takes long
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        text = json.dumps(request).encode() + b"\n"
        connection.sendall(text[socket.send_fds(connection, [text], [0, 1, 2]) :])
        pid = int.from_bytes(connection.recv(_PID_BYTES, socket.MSG_WAITALL))
        for number in _HANDED_ON:
            signal.signal(number, lambda number, _: _send(pid, number))
        for stream in range(3):  # whoever reads what the process says hears its end
            os.close(stream)
        return int.from_bytes(connection.recv(_PID_BYTES, socket.MSG_WAITALL), signed=True)


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass  # its end is about to be told


code = _main(*sys.argv[1:])
os._exit(code if code >= 0 else 128 - code)
