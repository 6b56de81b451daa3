"""Questions that containers ask their resolver, whatever bytes they are."""

from __future__ import annotations

import os
import struct

import pytest

from wherry_linux.network import dns


def query(name: bytes, kind: int = dns.A, flags: int = 0x0100, kind_of_class: int = 1) -> bytes:
    header = struct.pack(">HHHHHH", 7, flags, 1, 0, 0, 0)
    return header + name + struct.pack(">HH", kind, kind_of_class)


def test_a_question_is_read_in_small_letters() -> None:
    question = dns.read_question(query(b"\3WEB\5inner\0", dns.AAAA))

    assert question is not None
    assert (question.id, question.name, question.kind) == (7, "web.inner", dns.AAAA)


def test_an_answer_repeats_the_question_as_it_was_asked() -> None:
    question = dns.read_question(query(b"\3WEB\0"))
    assert question is not None

    answer = dns.answer(question, [(dns.A, b"\x0a\0\0\2")])

    assert answer[:12] == struct.pack(">HHHHHH", 7, 0x8180, 1, 1, 0, 0)
    assert answer[12:] == (
        b"\3WEB\0\0\1\0\1" + b"\xc0\x0c\0\1\0\1" + struct.pack(">IH", 600, 4) + b"\x0a\0\0\2"
    )


@pytest.mark.parametrize(("option", "kept"), [(b"", 30), (b"\0\0\x29\x04\xd0", 40)])
def test_what_does_not_fit_into_a_datagram_is_cut_off_and_said_to_be(
    option: bytes, kept: int
) -> None:
    asked = query(b"\3web\0") + option
    question = dns.read_question(asked[:11] + bytes([bool(option)]) + asked[12:])
    assert question is not None
    records = [(dns.A, bytes([10, 0, 0, number])) for number in range(40)]

    cut = dns.answer(question, records, whole=False)
    whole = dns.answer(question, records)

    assert len(cut) <= (1232 if option else 512)
    assert int.from_bytes(cut[6:8], "big") <= kept
    assert bool(cut[2] & 0x02) is (not option)
    assert int.from_bytes(whole[6:8], "big") == 40
    assert not whole[2] & 0x02


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\0" * 11,
        query(b"\3we"),
        query(b"\3web"),
        query(b"\xc0\x0c"),
        query(b"\x40" + b"a" * 64 + b"\0"),
        query(b"\3web\0")[:-1],
        query(b"\3web\0", flags=0x8180),
        query(b"\3web\0", flags=0x2800),
        query(b"\3web\0", kind_of_class=3),
    ],
)
def test_what_is_no_question_is_none(message: bytes) -> None:
    assert dns.read_question(message) is None


def test_no_bytes_make_it_fail() -> None:
    for _ in range(2000):
        dns.read_question(b"\0\7\1\0\0\1\0\0\0\0\0\0" + os.urandom(40))


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("2.0.0.10.in-addr.arpa", "10.0.0.2"),
        (".".join("2" + "0" * 29 + "df") + ".ip6.arpa", "fd00::2"),
        ("2.0.10.in-addr.arpa", None),
        ("999.0.0.10.in-addr.arpa", None),
        ("-1.0.0.10.in-addr.arpa", None),
        ("x.ip6.arpa", None),
        ("web", None),
    ],
)
def test_names_of_addresses(name: str, address: str | None) -> None:
    assert dns.address_of(name) == address
