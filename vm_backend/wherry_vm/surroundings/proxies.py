"""The proxies that are asked on this host's behalf, as the guest reaches them.

A command brings those of its own environment along, as it has them natively. Where it has
none, macOS and Windows have settings for all programs.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

HOST = "10.0.2.2"
"""The host's loopback, as the guest sees it."""

_SCHEMES = ("http", "https", "ftp", "all")
_NAMES = tuple(f"{each}_proxy" for each in (*_SCHEMES, "no"))


def of_environment(variables: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables of this process that name proxies, for the guest."""
    spelled = [each for name in _NAMES for each in (name, name.upper())]
    found = {name: variables[name] for name in spelled if variables.get(name)}
    return {
        name: text if name.lower() == "no_proxy" else as_seen_by_guest(text)
        for name, text in found.items()
    }


def of_system() -> dict[str, str]:
    """What macOS's or Windows' settings say, as such variables; nothing on Linux."""
    if sys.platform not in ("darwin", "win32"):
        return {}
    import urllib.request

    read = getattr(
        urllib.request,
        "getproxies_registry" if sys.platform == "win32" else "getproxies_macosx_sysconf",
    )
    return of_settings(read(), _exceptions())


def of_settings(proxies: Mapping[str, str], exceptions: tuple[str, ...]) -> dict[str, str]:
    """Variables for what `urllib.request.getproxies` says, and for the names it leaves out."""
    found = {
        f"{scheme}_proxy": as_seen_by_guest(text)
        for scheme, text in sorted(proxies.items())
        if scheme in _SCHEMES and text
    }
    if "socks" in proxies and not found:
        found["all_proxy"] = as_seen_by_guest(proxies["socks"].replace("http://", "socks5://"))
    if found and exceptions:
        found["no_proxy"] = ",".join(exceptions)
    return found


def as_seen_by_guest(proxy: str) -> str:
    """A proxy's URL, where one on the host's loopback is the host's."""
    from urllib.parse import urlsplit

    url = proxy if "://" in proxy else f"http://{proxy}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return proxy  # as wrong there as here
    if not _is_loopback(parts.hostname or ""):
        return proxy
    user, separator, _ = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user}{separator}{HOST}{f':{port}' if port else ''}").geturl()


def _is_loopback(name: str) -> bool:
    return name == "localhost" or name.startswith("127.") or name == "::1"


def _exceptions() -> tuple[str, ...]:
    """The names for which no proxy is asked, in the words of NO_PROXY."""
    if sys.platform == "darwin":
        from _scproxy import _get_proxy_settings  # type: ignore[import-not-found]

        return tuple(map(str, _get_proxy_settings().get("exceptions", ())))
    if sys.platform == "win32":
        import winreg

        path = r"Software\Microsoft\Windows\CurrentVersion\Internet Settings"
        try:
            with winreg.OpenKey(winreg.HKEY_CURRENT_USER, path) as key:
                text = str(winreg.QueryValueEx(key, "ProxyOverride")[0])
        except OSError:
            return ()
        return tuple(each for each in text.split(";") if each and each != "<local>")
    return ()
