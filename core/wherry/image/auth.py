"""Who we are to a registry: credentials, challenges and tokens.

Credentials come from where docker and podman keep them: a credential helper, docker's
`config.json`, podman's `auth.json`. What a registry wants with them it says in
`WWW-Authenticate` (RFC 9110, 11.6.1) and in the token specification of distribution.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import sys
import threading
import time
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit  # noqa: TID253

from wherry import origin
from wherry.errors import AccessDenied, CorruptState, NotFound, RegistryError
from wherry.files import read_json
from wherry.image.reference import DEFAULT_DOMAIN
from wherry.image.transport import http_errors, is_loopback
from wherry.values import value

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from wherry.config_file import ConfigFile
    from wherry.image.transport import Transport

# docker.io's key in every credential store, from the days of the first protocol.
DOCKER_IO_KEY = "https://index.docker.io/v1/"

# The user name that a helper gives with an identity token.
_TOKEN_USER = "<token>"
_CLIENT_ID = "wherry"
_DEFAULT_LIFETIME = 60.0
_MAX_TOKEN_ANSWER = 1 << 20


@value
class Credentials:
    """What proves who we are: a password, or a token in its place."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""

    def basic(self) -> str:
        """The value of a Basic Authorization header."""
        pair = f"{self.username}:{self.password}".encode()
        return "Basic " + base64.b64encode(pair).decode("ascii")


@value
class Challenge:
    """One scheme of a WWW-Authenticate header, and its parameters."""

    scheme: str
    parameters: dict[str, str]


def config_key(domain: str) -> str:
    """The key of a registry's credentials."""
    return DOCKER_IO_KEY if domain == DEFAULT_DOMAIN else domain


# --- stored credentials -----------------------------------------------------------


def find_credentials(config: ConfigFile, domain: str, path: str = "") -> Credentials | None:
    """The stored credentials for a repository, where there are any."""
    if origin.is_elsewhere():
        found = origin.ask(ask="credentials", registry=domain, path=path, file=config.path)
        return Credentials(**found) if found else None
    key = config_key(domain)
    helper = config.section("credHelpers").get(key) or config.text("credsStore")
    if helper:
        # docker reads its file no more once there is a helper; nor may we, or a
        # logout would not be one.
        return helper_get(str(helper), key) or _from_podman(domain, path)
    return _from_auths(config.section("auths"), config.path, (key, domain)) or _from_podman(
        domain, path
    )


def _from_podman(domain: str, path: str) -> Credentials | None:
    file = os.environ.get("REGISTRY_AUTH_FILE") or os.path.join(
        os.environ.get("XDG_RUNTIME_DIR") or f"/run/containers/{_uid()}", "containers/auth.json"
    )
    try:
        content = read_json(file)
    except OSError:
        return None
    auths = content.get("auths") if isinstance(content, dict) else None
    # podman logs in to repositories and namespaces too: the longest key wins.
    keys = [domain]
    for part in path.split("/") if path else ():
        keys.append(f"{keys[-1]}/{part}")
    return _from_auths(auths, file, [*reversed(keys)]) if isinstance(auths, dict) else None


def _uid() -> int:
    if sys.platform == "win32":
        return 0
    return os.getuid()


def _from_auths(auths: dict[str, Any], file: str, keys: Sequence[str]) -> Credentials | None:
    for key in keys:
        entry = auths.get(key)
        if entry is None:
            # Older files have URLs as keys: https://host/v1/.
            entry = next((auths[other] for other in auths if _host_of(other) == key), None)
        if isinstance(entry, dict) and (credentials := _from_entry(entry, key, file)):
            return credentials
    return None


def _host_of(key: str) -> str:
    return key.removeprefix("https://").removeprefix("http://").partition("/")[0]


def _from_entry(entry: dict[str, Any], key: str, file: str) -> Credentials | None:
    username, password = str(entry.get("username") or ""), str(entry.get("password") or "")
    if auth := entry.get("auth"):
        try:
            pair = base64.b64decode(str(auth), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise CorruptState(
                f"{file} is damaged: the credentials for {key} cannot be read",
                hint=f"wherry logout {key}, then log in again",
            ) from error
        username, colon, password = pair.partition(":")
        password = password.rstrip("\0")
        if not colon:
            raise CorruptState(f"{file} is damaged: the credentials for {key} have no password")
    credentials = Credentials(
        username=username,
        password=password,
        identity_token=str(entry.get("identitytoken") or ""),
        registry_token=str(entry.get("registrytoken") or ""),
    )
    return credentials if credentials != Credentials() else None


# --- credential helpers -----------------------------------------------------------


def helper_get(helper: str, key: str) -> Credentials | None:
    """What `docker-credential-HELPER` keeps under `key`; None where it keeps nothing."""
    try:
        answer = _run_helper(helper, "get", key)
    except NotFound:
        return None
    try:
        found = json.loads(answer)
        username, secret = str(found["Username"]), str(found["Secret"])
    except (ValueError, KeyError, TypeError) as error:
        raise RegistryError(f"docker-credential-{helper} gave no credentials: {error}") from error
    if username == _TOKEN_USER:
        return Credentials(identity_token=secret)
    return Credentials(username=username, password=secret)


def helper_store(helper: str, key: str, credentials: Credentials) -> None:
    """Give `credentials` to `docker-credential-HELPER` to keep."""
    is_token = bool(credentials.identity_token)
    entry = {
        "ServerURL": key,
        "Username": _TOKEN_USER if is_token else credentials.username,
        "Secret": credentials.identity_token if is_token else credentials.password,
    }
    _run_helper(helper, "store", json.dumps(entry))


def helper_erase(helper: str, key: str) -> None:
    """Have `docker-credential-HELPER` forget `key`."""
    try:
        _run_helper(helper, "erase", key)
    except NotFound:
        pass


def _run_helper(helper: str, action: str, given: str) -> str:
    import subprocess

    program = f"docker-credential-{helper}"
    if os.path.basename(program) != program:
        raise RegistryError(f"{helper!r} is no name of a credential helper")
    try:
        result = subprocess.run(
            [program, action], input=given, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise RegistryError(
            f"cannot run {program}: {error.strerror}",
            hint="`credsStore` and `credHelpers` of docker's config.json name it",
        ) from error
    if result.returncode == 0:
        return result.stdout
    # Helpers say why on standard output.
    reason = (result.stdout or result.stderr).strip() or f"exit code {result.returncode}"
    if "credentials not found" in reason:
        raise NotFound(reason)
    raise RegistryError(f"{program} {action} failed: {reason}")


# --- challenges -------------------------------------------------------------------


def parse_challenges(header: str) -> list[Challenge]:
    """The challenges of a WWW-Authenticate header; several may share one line."""
    challenges: list[Challenge] = []
    position = 0
    while position < len(header):
        position = _skip(header, position, " \t,")
        word, position = _token(header, position)
        if not word:
            break
        after = _skip(header, position, " \t")
        if after < len(header) and header[after] == "=" and challenges:
            text, position = _parameter_value(header, _skip(header, after + 1, " \t"))
            challenges[-1].parameters[word.lower()] = text
        else:
            challenges.append(Challenge(scheme=word.lower(), parameters={}))
    return challenges


def _skip(text: str, position: int, characters: str) -> int:
    while position < len(text) and text[position] in characters:
        position += 1
    return position


def _token(text: str, position: int) -> tuple[str, int]:
    start = position
    while position < len(text) and text[position] not in ' \t,="':
        position += 1
    return text[start:position], position


def _parameter_value(text: str, position: int) -> tuple[str, int]:
    if not text.startswith('"', position):
        return _token(text, position)
    characters: list[str] = []
    position += 1
    while position < len(text) and text[position] != '"':
        if text[position] == "\\":
            position += 1
        characters.append(text[position : position + 1])
        position += 1
    return "".join(characters), position + 1


# --- authorization ----------------------------------------------------------------


def pull_scopes(repository: str) -> frozenset[str]:
    """What a token must allow to read a repository."""
    return frozenset((f"repository:{repository}:pull",))


def push_scopes(repository: str) -> frozenset[str]:
    """What a token must allow to write to a repository."""
    return frozenset((f"repository:{repository}:pull,push",))


@value
class _Token:
    header: str
    expires: float


class Authenticator:
    """Answers one registry's challenges; remembers them, and the tokens, for its threads."""

    def __init__(
        self,
        transport: Transport,
        credentials: Credentials | None,
        registry: str,
        *,
        keep_identity: bool = False,
    ) -> None:
        self.credentials = credentials
        # What a token server gave in exchange for the password, with `keep_identity`.
        self.identity_token = ""
        self._keep_identity = keep_identity
        self._transport = transport
        self._registry = registry
        self._challenge: Challenge | None = None
        self._tokens: dict[frozenset[str], _Token] = {}
        self._lock = threading.Lock()

    def header(self, scopes: frozenset[str]) -> str | None:
        """The Authorization for `scopes`; None as long as nobody has asked for one."""
        if self.credentials and self.credentials.registry_token:
            return f"Bearer {self.credentials.registry_token}"
        with self._lock:
            if self._challenge is None:
                return None
            if self._challenge.scheme == "basic":
                return self.credentials.basic() if self.credentials else None
            token = self._tokens.get(scopes)
            if token is None or token.expires < time.monotonic():
                token = self._tokens[scopes] = self._fetch_token(self._challenge, scopes)
            return token.header

    def answer(self, challenge_header: str, scopes: frozenset[str], refused: str | None) -> bool:
        """Learn from a 401 to a request sent with `refused`; True where asking again may help."""
        challenges = {found.scheme: found for found in parse_challenges(challenge_header)}
        challenge = challenges.get("bearer") or challenges.get("basic")
        if challenge is None or (self.credentials and self.credentials.registry_token):
            return False
        if challenge.scheme == "basic" and (refused is not None or not self.credentials):
            return False
        with self._lock:
            self._challenge = challenge
            token = self._tokens.get(scopes)
            if token is not None and token.header == refused:
                del self._tokens[scopes]
        return True

    def _fetch_token(self, challenge: Challenge, scopes: frozenset[str]) -> _Token:
        realm = challenge.parameters.get("realm", "")
        parts = urlsplit(realm)
        if parts.scheme not in ("https", "http") or not parts.netloc:
            raise RegistryError(f"{self._registry} names no token server: {realm!r}")
        if parts.scheme == "http" and not (
            self._transport.is_insecure(parts.netloc) or self._transport.is_insecure(self._registry)
        ):
            raise RegistryError(f"{self._registry} names a token server on plain HTTP: {realm}")
        wanted = sorted(scopes | set(challenge.parameters.get("scope", "").split()))
        service = challenge.parameters.get("service", "")
        if self.credentials and self.credentials.identity_token:
            answer = self._post_for_token(realm, service, wanted)
        else:
            answer = self._get_token(realm, service, wanted)
        self.identity_token = str(answer.get("refresh_token") or "")
        token = answer.get("token") or answer.get("access_token")
        if not token:
            raise RegistryError(f"the token server {parts.netloc} gave no token")
        try:
            lifetime = float(answer.get("expires_in") or _DEFAULT_LIFETIME)
        except (TypeError, ValueError):
            lifetime = _DEFAULT_LIFETIME
        return _Token(header=f"Bearer {token}", expires=time.monotonic() + lifetime * 0.9)

    def _get_token(self, realm: str, service: str, scopes: list[str]) -> dict[str, Any]:
        query = [("scope", scope) for scope in scopes]
        if service:
            query.append(("service", service))
        headers = {}
        if self.credentials and self.credentials.username:
            query.append(("account", self.credentials.username))
            if self._keep_identity:
                query += [("client_id", _CLIENT_ID), ("offline_token", "true")]
            headers["Authorization"] = self.credentials.basic()
        url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}"
        return self._ask(realm, "GET", url, headers, None)

    def _post_for_token(self, realm: str, service: str, scopes: list[str]) -> dict[str, Any]:
        assert self.credentials
        parts = urlsplit(realm)
        if parts.scheme == "http" and not is_loopback(parts.netloc):
            raise AccessDenied(f"refusing to send credentials to {parts.netloc} over plain HTTP")
        form = {
            "grant_type": "refresh_token",
            "service": service,
            "client_id": _CLIENT_ID,
            "scope": " ".join(scopes),
            "refresh_token": self.credentials.identity_token,
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return self._ask(realm, "POST", realm, headers, urlencode(form).encode())

    def _ask(
        self, realm: str, method: str, url: str, headers: dict[str, str], body: bytes | None
    ) -> dict[str, Any]:
        host = urlsplit(realm).netloc
        response = self._transport.request(method, url, headers, body=body)
        with http_errors(host):
            content = response.read(_MAX_TOKEN_ANSWER)
            response.drain_conn()
        if response.status in (400, 401, 403):
            reason = _reason(content) or "authentication required"
            if self.credentials:
                reason = "incorrect username or password"
            raise AccessDenied(f"{self._registry} denied access: {reason}")
        if response.status != 200:
            raise RegistryError(f"the token server {host} answered {response.status}")
        try:
            answer = json.loads(content)
        except ValueError as error:
            raise RegistryError(f"the token server {host} gave no token: {error}") from error
        if not isinstance(answer, dict):
            raise RegistryError(f"the token server {host} gave no token")
        return answer


def _reason(content: bytes) -> str:
    """What a token server says about a refusal, in one of the two shapes in use."""
    try:
        answer = json.loads(content)
        if errors := answer.get("errors"):
            return str(errors[0].get("message", ""))
        return str(answer.get("details") or answer.get("message") or "")
    except (ValueError, AttributeError, TypeError, IndexError):
        return ""


# --- keeping them -----------------------------------------------------------------


def store_credentials(config: ConfigFile, domain: str, credentials: Credentials) -> str | None:
    """Keep `credentials`: in the helper that `config` names, or in its file.

    Returns the file's path where they now stand in plain text there.
    """
    key = config_key(domain)
    helper = config.section("credHelpers").get(key) or config.text("credsStore")
    if helper:
        helper_store(str(helper), key, credentials)
        config.change(lambda content: content.setdefault("auths", {}).__setitem__(key, {}))
        return None
    entry: dict[str, str] = {}
    if credentials.identity_token:
        entry["auth"] = base64.b64encode(f"{credentials.username}:".encode()).decode()
        entry["identitytoken"] = credentials.identity_token
    else:
        entry["auth"] = credentials.basic().removeprefix("Basic ")
    config.change(lambda content: content.setdefault("auths", {}).__setitem__(key, entry))
    return config.path


def erase_credentials(config: ConfigFile, domain: str) -> bool:
    """Forget the credentials for `domain`; False where there were none."""
    key = config_key(domain)
    auths = config.section("auths")
    known = [name for name in auths if name == key or _host_of(name) == domain]
    helper = config.section("credHelpers").get(key) or config.text("credsStore")
    if helper:
        helper_erase(str(helper), key)
    if known:

        def forget(content: dict[str, Any]) -> None:
            for name in known:
                content.get("auths", {}).pop(name, None)

        config.change(forget)
    return bool(known or helper)
