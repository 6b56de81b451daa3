"""The guest's own rules of nf_tables: where its host answers names, and what loopback hides.

The host reaches what listens on the guest's address. What a container with `--network host`
has on loopback alone is led there, too: on a host of its own it would be reached.
"""

from __future__ import annotations

import subprocess
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_ROUTE_LOCALNET = "/proc/sys/net/ipv4/conf/eth0/route_localnet"

# 10.0.2.3 is QEMU's name server, 10.0.2.2 the host. What the guest asks goes through `output`,
# what its containers ask through `prerouting`.
_TABLE = """\
table ip machine
delete table ip machine
table ip machine {{
  set hidden {{ type inet_proto . inet_service; }}
  chain names {{
    ip daddr 10.0.2.3 meta l4proto {{ tcp, udp }} th dport 53 dnat to 10.0.2.2:{port}
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat
    jump names
    iifname eth0 meta l4proto . th dport @hidden dnat to 127.0.0.1
  }}
  chain output {{
    type nat hook output priority dstnat
    jump names
  }}
}}
"""

_lock = threading.Lock()


def lead_names(port: int) -> None:
    """Have the host answer names at `port`, in a while: until then QEMU does."""

    def lead() -> None:
        with _lock:
            _load(_TABLE.format(port=port))
            with open(_ROUTE_LOCALNET, "w", encoding="ascii") as file:
                file.write("1")

    threading.Thread(target=lead, daemon=True, name="rules").start()


def lead_to_loopback(ports: Iterable[tuple[str, int]]) -> None:
    """Lead exactly these (protocol, port) that come from the host to 127.0.0.1."""
    elements = ", ".join(f"{protocol} . {port}" for protocol, port in ports)
    adding = f"add element ip machine hidden {{ {elements} }}\n" if elements else ""
    with _lock:
        _load(f"flush set ip machine hidden\n{adding}")


def _load(rules: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=rules.encode(), check=False)
