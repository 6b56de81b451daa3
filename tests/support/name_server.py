"""A name server for tests: `python3 name_server.py ADDRESS ANSWER` prints "up" and serves.

Every name of `example` has the address ANSWER, and a text that takes TCP.
"""

from __future__ import annotations

import socket
import struct
import sys
import threading

_TEXTS = 200  # of 250 bytes each: more than a datagram of 64 KiB is not, but more than is taken


def respond(query: bytes, answer: bytes, *, stream: bool) -> bytes:
    end = query.index(b"\0", 12) + 5
    question, kind = query[12:end], int.from_bytes(query[end - 4 : end - 2], "big")
    records: list[tuple[int, bytes]] = []
    flags = 0x8180
    if b"\7example\0" in question:
        if kind == 1:
            records = [(1, answer)]
        elif kind == 16 and stream:
            records = [(16, b"\xfa" + bytes([65 + n % 26]) * 250) for n in range(_TEXTS)]
        elif kind == 16:
            flags |= 0x0200
    body = b"".join(
        b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 60, len(content)) + content
        for kind, content in records
    )
    return query[:2] + struct.pack(">HHHHH", flags, 1, len(records), 0, 0) + question + body


def serve_datagrams(address: str, answer: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind((address, 53))
        print("up", flush=True)
        while True:
            query, peer = datagrams.recvfrom(4096)
            datagrams.sendto(respond(query, answer, stream=False), peer)


def serve_streams(listener: socket.socket, answer: bytes) -> None:
    while True:
        connection, _ = listener.accept()
        with connection, connection.makefile("rwb") as stream:
            while length := stream.read(2):
                response = respond(stream.read(int.from_bytes(length, "big")), answer, stream=True)
                stream.write(struct.pack(">H", len(response)) + response)
                stream.flush()


def main() -> None:
    address, answer = sys.argv[1], socket.inet_aton(sys.argv[2])
    listener = socket.create_server((address, 53))
    threading.Thread(target=serve_streams, args=(listener, answer), daemon=True).start()
    serve_datagrams(address, answer)


if __name__ == "__main__":
    main()
