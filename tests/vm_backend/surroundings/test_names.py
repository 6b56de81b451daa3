"""The name server of a machine, which asks the host's."""

from __future__ import annotations

import socket
from contextlib import closing

from support.resolver import NameServer, question
from wherry_vm.surroundings.names import Names
from wherry_vm.surroundings.resolvers import Resolvers

SECONDS = 60


def asked(names: Names, name: str) -> bytes:
    """What it answers to a datagram."""
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.settimeout(SECONDS)
        client.sendto(question(name), ("127.0.0.1", names.port))
        return client.recv(4096)


def test_each_domain_is_asked_where_the_host_asks_for_it() -> None:
    with NameServer("192.0.2.1") as everybody, NameServer("192.0.2.2") as company:
        resolvers = Resolvers(routes={"": (everybody.address,), "corp.example": (company.address,)})
        with closing(Names(lambda: resolvers)) as names:
            public, private = asked(names, "example.org"), asked(names, "wiki.corp.example")

    assert public.endswith(bytes((192, 0, 2, 1)))
    assert private.endswith(bytes((192, 0, 2, 2)))
    assert (everybody.asked, company.asked) == (["example.org"], ["wiki.corp.example"])


def test_a_server_that_is_gone_is_passed_over() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as gone:
        gone.bind(("127.0.0.1", 0))
        nobody = gone.getsockname()
    with NameServer("192.0.2.1") as server:
        resolvers = Resolvers(routes={"": (nobody, server.address)})
        with closing(Names(lambda: resolvers)) as names:
            assert asked(names, "example.org").endswith(bytes((192, 0, 2, 1)))


def test_a_long_answer_comes_by_a_stream() -> None:
    with NameServer("192.0.2.1") as server:
        resolvers = Resolvers(routes={"": (server.address,)})
        with (
            closing(Names(lambda: resolvers)) as names,
            socket.create_connection(("127.0.0.1", names.port), SECONDS) as client,
        ):
            message = question("example.org")
            client.sendall(len(message).to_bytes(2, "big") + message)
            said = client.recv(4096)

    assert said[2:4] == message[:2]
    assert said.endswith(bytes((192, 0, 2, 1)))


def test_a_host_without_servers_answers_that_it_failed() -> None:
    with closing(Names(lambda: Resolvers(routes={}))) as names:
        said = asked(names, "example.org")

    assert said[:2] == b"\x12\x34"
    assert said[2] & 0x80
    assert said[3] & 0xF == 2
