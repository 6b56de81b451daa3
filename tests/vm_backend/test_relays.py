"""Ports of IPv6 addresses, which the supervisor relays to QEMU's."""

from __future__ import annotations

import socket
from contextlib import ExitStack, closing
from functools import partial

import pytest

from support.ports import free_port
from support.waiting import Deadline, wait_until
from wherry_vm.ports import Forwards, on_loopback
from wherry_vm.relays import DatagramRelay, StreamRelay

SECONDS = 60
KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


class Monitor:
    """QEMU's monitor, to which everything is right."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def __call__(self, line: str) -> str:
        self.said.append(line)
        return ""


def test_a_guest_does_not_get_all_ports_of_its_host() -> None:
    monitor = Monitor()
    forwards = Forwards(monitor)
    answers = [
        forwards.answer(
            {"publish": str(at), "ports": [["tcp", "192.0.2.1", at + n] for n in range(1000)]}
        )
        for at in range(20000, 30000, 1000)
    ]

    assert answers[:4] == [{}] * 4
    assert {each["error"]["message"] for each in answers[4:]} == {
        "a machine publishes 4096 ports at most"
    }
    assert len(monitor.said) == 4000


def test_each_sender_of_datagrams_is_answered_for_itself() -> None:
    port = free_port(socket.SOCK_DGRAM, socket.AF_INET6)
    with socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(SECONDS)
        with closing(DatagramRelay(("::1", port), server.getsockname())):
            clients = [socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) for _ in range(3)]
            for number, client in enumerate(clients):
                client.settimeout(SECONDS)
                client.sendto(bytes((number,)), ("::1", port))
            for _ in clients:
                data, sender = server.recvfrom(16)
                server.sendto(data * 2, sender)
            said = [client.recv(16) for client in clients]
            for client in clients:
                client.close()

    assert said == [b"\0\0", b"\1\1", b"\2\2"]


def test_a_relay_that_is_closed_gives_its_port_back() -> None:
    datagrams = free_port(socket.SOCK_DGRAM, socket.AF_INET6)
    stream = free_port(socket.SOCK_STREAM, socket.AF_INET6)
    DatagramRelay(("::1", datagrams), ("127.0.0.1", 9)).close()
    StreamRelay(("::1", stream), ("127.0.0.1", 9)).close()

    for kind, port in ((socket.SOCK_DGRAM, datagrams), (socket.SOCK_STREAM, stream)):
        wait_until(partial(can_be_bound, kind, port), Deadline(SECONDS, f"port {port}"))


def can_be_bound(kind: socket.SocketKind, port: int) -> bool:
    with socket.socket(socket.AF_INET6, kind) as probe:
        try:
            probe.bind(("::1", port))
        except OSError:
            return False
        return True


def test_a_relay_takes_more_than_it_can_answer_at_once() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(SECONDS)
        relay = DatagramRelay(("::1", 0), server.getsockname())
        with closing(relay):
            for number in range(600):
                with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
                    client.sendto(b"%d" % number, ("::1", relay.port))
                    assert server.recv(16) == b"%d" % number


def test_a_port_carries_so_many_connections_at_once_and_others_wait() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=512) as server:
        server.settimeout(SECONDS)
        relay = StreamRelay(("::1", 0), server.getsockname()[:2])
        with closing(relay), ExitStack() as stack:
            clients = [_client(relay.port, stack) for _ in range(257)]
            served = [stack.enter_context(server.accept()[0]) for _ in clients[:-1]]
            server.settimeout(0.5)
            with pytest.raises(TimeoutError):
                server.accept()
            clients[0].close()
            for each in served:
                each.close()

            server.settimeout(SECONDS)
            last = stack.enter_context(server.accept()[0])
            last.sendall(b"at last")
            assert clients[-1].recv(16) == b"at last"


def _client(port: int, stack: ExitStack) -> socket.socket:
    client = stack.enter_context(socket.create_connection(("::1", port), timeout=SECONDS))
    client.settimeout(SECONDS)
    return client


def test_what_listens_in_the_guest_listens_on_loopback_and_no_longer() -> None:
    first, second = free_port(socket.SOCK_STREAM), free_port(socket.SOCK_DGRAM)
    monitor = Monitor()
    forwards = Forwards(monitor)
    forwards.follow([("tcp", "0.0.0.0", first), ("udp", "127.0.0.1", second)])
    forwards.follow([("udp", "127.0.0.1", second)])

    assert monitor.said == [
        f"hostfwd_add net tcp:127.0.0.1:{first}-:{first}",
        f"hostfwd_add net udp:127.0.0.1:{second}-:{second}",
        f"hostfwd_remove net tcp:127.0.0.1:{first}",
    ]


def test_qemu_has_one_way_to_a_udp_port_of_the_guest_s_for_as_long_as_somebody_goes_by_it() -> None:
    port = free_port(socket.SOCK_DGRAM)
    said: list[str] = []

    def monitor(line: str) -> str:
        said.append(line)
        return ""

    forwards = Forwards(monitor)
    everywhere, elsewhere = ["udp", "0.0.0.0", port], ["udp", "::", port]
    for ports in ([everywhere, elsewhere], [elsewhere], []):
        assert forwards.answer({"publish": "1", "ports": ports}) == {}

    rule = f"udp:0.0.0.0:{port}"
    assert said == [f"hostfwd_add net {rule}-:{port}", f"hostfwd_remove net {rule}"]


@pytest.mark.parametrize("address", ["0.0.0.0", "127.0.0.1"])
@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_a_program_of_the_host_keeps_its_port_whatever_its_system_lets_qemu_have(
    kind: str, address: str
) -> None:
    monitor = Monitor()
    with socket.socket(type=KINDS[kind]) as taken:
        taken.bind((address, 0))
        port = taken.getsockname()[1]
        if kind == "tcp":
            taken.listen()
        answer = Forwards(monitor).answer({"publish": "1", "ports": [[kind, "127.0.0.1", port]]})

    assert answer["busy"] == [kind, port]
    assert monitor.said == []


def test_a_port_that_is_taken_is_told_of_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        forwards = Forwards(lambda _: "Could not set up host forwarding rule")
        first = forwards.follow([("tcp", "0.0.0.0", port)])
        again = forwards.follow([("tcp", "0.0.0.0", port)])

    told = f"--network host: Bind for 127.0.0.1:{port} failed: port is already allocated"
    assert (first, again) == ([told], [])


def test_a_port_that_was_taken_is_had_when_it_is_free() -> None:
    monitor = Monitor()
    forwards = Forwards(monitor)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        forwards.follow([("tcp", "0.0.0.0", port)])
        forwards.follow_again()
        before = list(monitor.said)
    forwards.follow_again()
    forwards.follow_again()
    forwards.follow([])

    assert before == []
    assert monitor.said == [
        f"hostfwd_add net tcp:127.0.0.1:{port}-:{port}",
        f"hostfwd_remove net tcp:127.0.0.1:{port}",
    ]


def test_what_listens_everywhere_is_on_both_loopbacks() -> None:
    assert on_loopback("tcp", "::", 80) == [("tcp", "127.0.0.1", 80), ("tcp", "::1", 80)]


def test_what_listens_on_ipv6s_loopback_alone_does_so_on_the_host() -> None:
    assert on_loopback("tcp", "::1", 80) == [("tcp", "::1", 80)]
    assert on_loopback("tcp", "fec0::1", 80) == []
