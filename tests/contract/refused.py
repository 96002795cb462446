"""Cases: what parsers may read differently is refused, the connection closed, and nothing of it forwarded."""

import asyncio
from typing import Final

from tests.contract.backend import chunk
from tests.contract.stand import CHAT, GET, POST, SOON_SECONDS, Group, Run, Stand, check
from tests.contract.wire import parse_head

REFUSED = Group("rejected")
_LENGTH: Final = b"Content-Length: %d\r\n" % len(CHAT)
_TE: Final = b"Transfer-Encoding: chunked\r\n"
_END: Final = chunk(CHAT) + chunk(b"")
_STATUSES: Final = (*range(400, 500), 501, 505)
_SECONDS: Final = SOON_SECONDS  # some close a second later

_CASES: Final = {
    "Content-Length and Transfer-Encoding": POST + _LENGTH + _TE + b"\r\n" + _END,
    "Content-Length twice, different": POST + _LENGTH + b"Content-Length: 5\r\n\r\n" + CHAT,
    "Content-Length twice, equal": POST + _LENGTH + _LENGTH + b"\r\n" + CHAT,
    "Content-Length: a list": POST + b"Content-Length: 5, 5\r\n\r\nhello",
    "Content-Length: +5": POST + b"Content-Length: +5\r\n\r\nhello",
    "Content-Length: 0x5": POST + b"Content-Length: 0x5\r\n\r\nhello",
    "Content-Length: -1": POST + b"Content-Length: -1\r\n\r\n",
    "Content-Length of 20 digits": POST + b"Content-Length: 18446744073709551621\r\n\r\nhello",
    "Transfer-Encoding: gzip, chunked": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + _END,
    "Transfer-Encoding: gzip and chunked in two lines": POST
    + b"Transfer-Encoding: gzip\r\n"
    + _TE
    + b"\r\n"
    + _END,
    "Transfer-Encoding: chunked twice": POST + _TE + _TE + b"\r\n" + _END,
    "Transfer-Encoding: identity": POST + b"Transfer-Encoding: identity\r\n" + _LENGTH + b"\r\n" + CHAT,
    "Transfer-Encoding: xchunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n" + _END,
    "Transfer-Encoding after a vertical tab": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + _END,
    "Transfer-Encoding with a space before its colon": POST + b"Transfer-Encoding : chunked\r\n\r\n" + _END,
    "Transfer-Encoding in HTTP/1.0": POST.replace(b"/1.1", b"/1.0") + _TE + b"\r\n" + _END,
    "bare LF in the header section": (GET + b"X: a\r\n\r\n").replace(b"\r\n", b"\n"),
    "bare LF within a line": GET + b"X: a\nTransfer-Encoding: chunked\r\n\r\n",
    "bare CR in the header section": GET + b"X: a\rb\r\n\r\n",
    "NUL in the header section": GET + b"X: a\0b\r\n\r\n",
    "a folded header (obs-fold)": GET + b"X: a\r\n b\r\n\r\n",
    "a folded first header": b"GET / HTTP/1.1\r\n Host: h\r\n\r\n",
    "a space before a colon": GET + b"X : a\r\n\r\n",
    "a header without a colon": GET + b"X\r\n\r\n",
    "an empty header name": GET + b": a\r\n\r\n",
    "Host twice": GET + b"Host: other.test\r\n\r\n",
    "no Host": b"GET /v1/models HTTP/1.1\r\n\r\n",
    "absolute form of another host": GET.replace(b"/v1", b"http://evil.test/v1") + b"\r\n",
    "CONNECT": b"CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n",
    "a space in the path": GET.replace(b"/v1/models", b"/v1/ models") + b"\r\n",
    "HTTP/2.0 without TLS": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/1.2": GET.replace(b"/1.1", b"/1.2") + b"\r\n",
    "a header section of 1 MiB": GET + b"X: " + b"a" * (1 << 20) + b"\r\n\r\n",
    "10,000 headers": GET + b"".join(b"X-%d: aaaaaaaa\r\n" % n for n in range(10_000)) + b"\r\n",
    "a chunk without a size": POST + _TE + b"\r\n;\r\n",
    "a chunk's size with 0x": POST + _TE + b"\r\n0x5\r\nhello\r\n0\r\n\r\n",
    "a chunk's size of 20 digits": POST + _TE + b"\r\nfffffffffffffffff5\r\nhello",
    "a chunk longer than its size": POST + _TE + b"\r\n2\r\nhello\r\n0\r\n\r\n",
    "bare LF after a chunk's size": POST + _TE + b"\r\n5\nhello\r\n0\r\n\r\n",
    "a flood of chunk extensions": POST + _TE + b"\r\n" + (b"1;" + b"x" * 1000 + b"\r\na\r\n") * 100,
    "a chunk extension of 1 MiB": POST + _TE + b"\r\n1;" + b"x" * (1 << 20),
    "trailers of 1 MiB": POST + _TE + b"\r\n0\r\n" + b"X: aaaaaaaaaa\r\n" * 80_000 + b"\r\n",
}


def _run(data: bytes) -> Run:
    async def run(stand: Stand) -> None:
        async with stand.client() as client:
            client.send(data)
            got, ended = await _all(client.reader)
        status = parse_head(got.partition(b"\r\n\r\n")[0] + b"\r\n\r\n").status if got else None
        whole = [call for call in stand.backend.calls if call.body]
        check(not (stand.backend.calls and status == 200), "forwarded")
        check(not whole, f"forwarded, {status}")
        check(status is not None or ended, "waits for more")
        check(status != 0, "another protocol")
        check(status is None or status in _STATUSES, f"{status}")
        check(ended, f"{status}, kept open")
        check(status is not None, "closed without an answer")

    return run


async def _all(reader: asyncio.StreamReader) -> tuple[bytes, bool]:
    """Return the bytes received, and whether the connection ended."""
    got = b""
    try:
        async with asyncio.timeout(_SECONDS):
            while data := await reader.read(1 << 16):
                got += data
    except TimeoutError:
        return got, False
    except ConnectionError:
        return got, True
    return got, True


for _title, _data in _CASES.items():
    REFUSED.case(_title)(_run(_data))
