"""A provider in OpenAI's format that costs our process nothing: `python -m tests.benchmarks.provider` prints its port.

The model's name says what it streams: `bench-200-50` is 200 chunks, one every 50 ms; each is a stamp of the moment when it was sent.
`prose-1536-20` is 1,536 chunks of 10 characters of a text, one every 20 ms.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.benchmarks.stamps import stamp

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
_BASE = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1795316865, "model": "bench"}
_ROOT = Path(__file__).parents[2]
_CHAPTER = """## Chapter {number}

A paragraph with **bold**, *italic*, `code` and [a link](https://example.org/{number}), long enough to be broken into several lines by a
window of any width, as people and models write them.

| Name | Colour | Number |
|---|---|---:|
| first | red | {number} |
| second | green | 2 |

1. One thing
2. Another thing, with
   - a part
   - another part

```python
def chapter(number: int = {number}) -> str:
    # Says which chapter this is.
    return f"chapter {{number}}"  # and nothing else
```

"""
_END = "This is the end."


@asynccontextmanager
async def provider() -> AsyncIterator[str]:
    """Runs it in a process of its own; gives its address."""
    command = (sys.executable, "-m", "tests.benchmarks.provider")
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, cwd=_ROOT)
    try:
        assert process.stdout
        async with asyncio.timeout(30):
            port = int(await process.stdout.readline())
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        await process.wait()


def model(chunks: int, *, gap_ms: int = 0) -> str:
    return f"openai/bench-{chunks}-{gap_ms}"


def prose_model(deltas: int) -> str:
    return f"openai/prose-{deltas}-20"


def prose(deltas: int) -> str:
    """What `prose_model` says: Markdown of every kind, 10 characters in each delta, to the last one."""
    size = deltas * 10 - len(_END) - 2
    chapters = "".join(_CHAPTER.format(number=number) for number in range(1, size // 400 + 2))
    return f"{chapters[:size]}\n\n{_END}"


async def _serve() -> None:
    server = await asyncio.start_server(_answer, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        kind, chunks, gap_ms = await _plan(reader)
        said = _said(kind, chunks)
        writer.write(_HEAD + _chunk({"role": "assistant", "content": ""}))
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number in range(chunks):
            await asyncio.sleep(began + number * gap_ms / 1000 - loop.time())
            writer.write(next(said))
            await writer.drain()
        writer.write(_chunk({}, finish_reason="stop") + _usage(chunks) + _frame(b"[DONE]") + b"0\r\n\r\n")
        await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        pass  # the client went away
    finally:
        writer.close()


def _said(kind: str, chunks: int) -> Iterator[bytes]:
    if kind == "prose":
        text = prose(chunks)
        yield from [_chunk({"content": text[begin : begin + 10]}) for begin in range(0, len(text), 10)]
        return
    example = stamp()
    before, after = _chunk({"content": example}).split(example.encode())
    while True:
        yield before + stamp().encode() + after


async def _plan(reader: asyncio.StreamReader) -> tuple[str, int, int]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = int(head.split("content-length:")[1].split("\r\n")[0])
    kind, chunks, gap_ms = json.loads(await reader.readexactly(length))["model"].split("-")
    return kind, int(chunks), int(gap_ms)


def _chunk(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
    return _frame(json.dumps(_BASE | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}).encode())


def _usage(chunks: int) -> bytes:
    counts = {"prompt_tokens": 10, "completion_tokens": chunks, "total_tokens": 10 + chunks}
    return _frame(json.dumps(_BASE | {"choices": [], "usage": counts}).encode())


def _frame(data: bytes) -> bytes:
    event = b"data: " + data + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(event), event)


if __name__ == "__main__":
    asyncio.run(_serve())
