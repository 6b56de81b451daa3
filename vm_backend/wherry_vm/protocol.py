"""What a command on the host and the guest's runner say to each other.

Frames are those of `wherry.container.wire`. The host begins with a CONTROL frame, the
request:

    {"op": "run", "argv": ["run", "--rm", …], "environment": {…}, "stdin": true,
     "terminals": [true, true, true], "size": [24, 80], "brief": false}

With "program" in the place of "run" it is another program than wherry that runs.
`stdin` says whether the command reads standard input, `terminals` which of its three
streams are the user's terminal; one that is `brief` says nothing before its end (see
`wherry.backend.Command`). What follows, in both directions, until the end:

    host → guest                             guest → host
    STDIN                                    STDOUT, STDERR
    {"op": "eof"}      no more of it         {"event": "taken", "bytes": n}  of STDIN
    {"op": "signal", "name": "SIGINT"}       {"event": "exit", "code": n}    the last word
    {"op": "resize", "size": [24, 80]}       {"error": {…}}                  it never ran
    {"op": "answer", "id": n, "answer": {…}} {"event": "ask", "id": n, "question": {…}}
    {"op": "closed", "output": n}   nobody reads the output of this kind any more

The questions are those of `wherry.origin`; "configuration" in the request are the files of
docker's configuration directory that are not credentials, by their names in it.

No more than `WINDOW` bytes of STDIN are on their way without having been taken, so that
a signal never waits behind input that nobody reads.

A command reaches the runner over a connection of its own, through SSH, or a virtio-serial
port, which many commands have one after the other. On a port the host begins each with an
OPEN frame, or AHEAD where no command is there yet, and the guest answers OPEN. What is the
end of a connection elsewhere is an END frame there: the host's, and then the guest's, which
says that it has read that and nothing beyond.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

    from wherry.container.wire import Parser

OPEN, AHEAD, END = 8, 9, 10
"""The kinds of frames that go with a port, beside those of wherry.container.wire."""

COMMAND_PORT = "org.wherry.command."
"""What the ports for commands are called, with a number."""

COMMAND_PORTS = 12
"""How many there are. Each costs the guest half a megabyte for what may come."""

SHARE_PORT = "org.wherry.share."
"""What the ports for shares are called, with a number."""

WINDOW = 1 << 18

CHUNK = 1 << 16

NONSENSE = (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError)
"""What a message that is not as it should be makes of whoever reads it."""

RUNNER_SOCKET = "/run/wherry-guest/runner.sock"
"""Where the guest's runner listens, too: root's alone, and reached through SSH."""

ORIGINS = "/run/wherry-guest/origins"
"""Where commands in the guest ask their hosts; WHERRY_ORIGINS moves it."""

PAUSE = "wherry.pause"
"""The word on the kernel's command line that has a guest pause: see wherry_vm.saved."""


def first_frames(stream: socket.socket, parser: Parser) -> list[tuple[int, bytes]]:
    """The request that a connection begins with, and what came along; none where it ends."""
    while data := stream.recv(CHUNK):
        if frames := parser.feed(data):
            return frames
    return []
