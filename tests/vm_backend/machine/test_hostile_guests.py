"""A guest that has been taken over: its root speaks to the host in the agent's place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.machines import BOOT, inspect, start
from support.ports import listeners
from support.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from support.cli import Cli
    from support.world import World

pytestmark = [pytest.mark.vm, pytest.mark.network]

SPEAK = r"""
import json, os, signal, sys, time

def take(name):
    'The port of that name, from whoever has it.'
    for port in os.listdir('/sys/class/virtio-ports'):
        if open(f'/sys/class/virtio-ports/{port}/name').read().strip() == name:
            device = f'/dev/{port}'
    while True:
        for pid in filter(str.isdigit, os.listdir('/proc')):
            try:
                held = [os.readlink(f'/proc/{pid}/fd/{fd}') for fd in os.listdir(f'/proc/{pid}/fd')]
                if device in held:
                    os.kill(int(pid), signal.SIGKILL)
            except OSError:
                pass
        try:
            return os.open(device, os.O_RDWR)
        except OSError:
            time.sleep(0.05)

def say(data):
    'A port takes so much at a time.'
    while data:
        data = data[os.write(port, data):]
"""

EVENTS = (
    SPEAK
    + r"""
port = take('org.wherry.events')

def tell(message):
    say(json.dumps(message).encode() + b'\n')

def ask(ports):
    global number
    number += 1
    tell({'event': 'ports', 'id': number, 'publish': f'c{number}', 'ports': ports})
    buffer = b''
    while True:
        *lines, buffer = (buffer + os.read(port, 4096)).split(b'\n')
        for message in map(json.loads, lines):
            if message.get('op') == 'ports' and message['id'] == number:
                return message['answer']

number = 0
say(b'x' * (1 << 20) + b'\n')
say(b'[' * 60000 + b'\n')
say(b'\xff\x00{"event"\n[]\n7\nnull\n{}\n')
say(b'{"event": "beat", "time": 1e999, "running": -5, "binds": [[], 7, null, "/../../etc"]}\n')
for event in ('ready', 'beat', 'mounted', 'unmounted', 'told', 'ports', 'forward', 'nonsense'):
    for value in (None, [], {}, 'x', -1, 1e99, ['x'], {'x': []}):
        tell({'event': event})
        keys = ('id', 'time', 'running', 'binds', 'mounts', 'number', 'target', 'error',
                'publish', 'withdraw', 'ports', 'data', 'answer')
        tell({'event': event, **dict.fromkeys(keys, value)})
answers = [
    ask(ports) for ports in (
        [['tcp', '127.0.0.1:7-10.0.2.2:9', 5]],
        [['tcp', '127.0.0.1', '7 -net']],
        [['tcp', '127.0.0.1\nquit', 7000]],
        [['unix', '127.0.0.1', 7000]],
        [['tcp', 'localhost', 7000]],
        [['tcp', '', 7000]],
        [['tcp', '127.0.0.1', 70000]],
        [['tcp', '127.0.0.1', 0]],
        [['tcp', '192.0.2.1', 7000]],
        [['tcp']], [7], 7, None,
    )
]
print(json.dumps(answers))
"""
)

FILES = (
    SPEAK
    + r"""
import struct

port = take('org.wherry.share.0')

def exactly(size):
    data = b''
    while len(data) < size:
        data += os.read(port, size - len(data))
    return data

def send(kind, body):
    say(struct.pack('>IB', 1 + len(body), kind) + body)

def text(data):
    return struct.pack('>I', len(data)) + data

def answer():
    size, kind = struct.unpack('>IB', exactly(5))
    return kind, exactly(size - 1)

def status(kind, *fields):
    send(kind, struct.pack('>I', 7) + b''.join(fields))
    kind, body = answer()
    return -kind if kind != 101 else struct.unpack('>I', body[4:8])[0]

# What sshfs had asked for last may still be answered.
send(1, struct.pack('>I', 3))
while answer()[0] != 2:
    pass
READ, LINK = struct.pack('>II', 1, 0), 20
outside = sys.argv[1].encode()
status(LINK, text(outside), text(b'/out'))
status(LINK, text(b'../..'), text(b'/up'))
status(LINK, text(b'/proc/self/root'), text(b'/magic'))
paths = [
    b'/../secret', b'../secret', b'/./../secret', b'/out/secret', b'/up/secret',
    b'/magic' + outside + b'/secret', outside + b'/secret', b'/\0', b'/' + b'a/' * 40000,
]
codes = []
for path in paths:
    codes.append(status(3, text(path), READ))
    codes.append(status(13, text(path + b'x')))
    codes.append(status(18, text(path), text(b'/mine')))
    codes.append(status(200, text(b'hardlink@openssh.com'), text(path), text(b'/mine2')))
    codes.append(status(14, text(path + b'/new'), struct.pack('>I', 0)))
print(codes)
# A packet that never ends is the end of the share, and of nothing else.
say(struct.pack('>IB', 0xFFFFFFFF, 3))
"""
)


def in_guest(wherry: Cli, script: str, *words: str) -> str:
    """What a program says that root runs in the guest."""
    return wherry(
        "machine", "ssh", "default", "python3", "-c", script, *words, timeout=BOOT
    ).stdout  # fmt: skip


def test_messages_that_make_no_sense_do_the_host_no_harm(own_world: World) -> None:
    wherry = own_world.wherry
    start(wherry)
    pid = int(str(inspect(wherry)["Pid"]))
    before = listeners(pid)

    answers = json.loads(in_guest(wherry, EVENTS))

    assert all("error" in each for each in answers), answers
    assert listeners(pid) == before
    # The guest is of no use any more, but it is still the host that says so.
    assert wherry("machine", "ls", "--format", "{{.Name}}").lines == ["default"]
    wherry("machine", "stop", "--force")
    log = Path(own_world.root, "data/machines/default/supervisor.log").read_text()
    assert "Traceback" not in log
    start(wherry)


def test_what_is_outside_a_share_is_out_of_reach(own_world: World) -> None:
    wherry = own_world.wherry
    outside, share = Path(own_world.directory, "outside"), Path(own_world.directory, "share")
    outside.mkdir()
    share.mkdir()
    (outside / "secret").write_text("secret")
    wherry("machine", "init", "--share", str(share))
    start(wherry)

    codes = json.loads(in_guest(wherry, FILES, str(outside)))

    assert all(code > 0 for code in codes), codes
    assert {each.name for each in share.iterdir()} == {"out", "up", "magic"}
    assert [each.name for each in outside.iterdir()] == ["secret"]
    wait_until(
        lambda: wherry("machine", "ssh", "default", "echo", "here").lines == ["here"],
        Deadline(60, "the machine"),
    )


def test_a_console_that_never_ends_does_not_fill_the_disk(own_world: World) -> None:
    wherry = own_world.wherry
    start(wherry)
    console = Path(own_world.root, "data/machines/default/console.log")

    shell = ("machine", "ssh", "default", "sh", "-c")
    wherry(*shell, "yes wherry | dd of=/dev/ttyS0 bs=64k count=24 2>/dev/null", timeout=BOOT)
    wait_until(lambda: console.stat().st_size <= 1 << 20, Deadline(60, "a shorter console"))
    wherry(*shell, "echo over >/dev/ttyS0")

    wait_until(lambda: console.read_text().endswith("over\n"), Deadline(60, "more of it"))
    assert console.stat().st_size <= 1 << 20
