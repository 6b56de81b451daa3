"""`login`, `logout`, `search`: what is asked of a registry, and who we are to it.

These run where they are typed, on the host: its configuration and its credential
helpers are the user's.
"""

# ruff: noqa: A002 - an option's name is its parameter's

from __future__ import annotations

import sys

from wherry.cli.each import complain
from wherry.cli.grammar import argument, command, option
from wherry.cli.tables import Table, print_rows
from wherry.errors import UsageError, WherryError
from wherry.filters import matches, parse_boolean, parse_filters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.config_file import ConfigFile
    from wherry.filters import Filters
    from wherry.image.auth import Credentials
    from wherry.image.search import Found

_DOCKER_IO_NAMES = frozenset(("", "docker.io", "index.docker.io", "registry-1.docker.io"))
_MAX_RESULTS = 100
_DESCRIPTION_WIDTH = 45

_RESULTS = Table(
    columns=("Name", "Description", "StarCount", "IsOfficial"),
    titles={"StarCount": "STARS", "IsOfficial": "OFFICIAL", "IsAutomated": "AUTOMATED"},
    quiet="Name",
)


@command(
    option("-p", "--password", default=None, metavar="string", help="Password or access token"),
    option("--password-stdin", type=bool, help="Take the password from stdin"),
    option(
        "--tls-verify",
        type=bool,
        default=True,
        help="Require HTTPS and a valid certificate of the registry",
    ),
    option("-u", "--username", metavar="string", help="Username"),
    argument("server", required=False),
    examples="""\
  $ wherry login ghcr.io                               asks for name and password
  $ wherry login -u me --password-stdin ghcr.io < token
""",
)
def login(
    server: str, username: str, password: str | None, password_stdin: bool, tls_verify: bool
) -> int:
    """Authenticate to a registry

    Without SERVER it is docker.io. The credentials go to the credential helper that
    config.json names, and into that file where it names none.
    """
    from wherry.config_file import ConfigFile
    from wherry.image.auth import find_credentials

    if password is not None:
        _warn("WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
        if password_stdin:
            raise UsageError("--password and --password-stdin are mutually exclusive")
    if password_stdin:
        if not username:
            raise UsageError("the --password-stdin option requires --username to be set")
        password = sys.stdin.read().rstrip("\r\n")
    if password == "":
        raise UsageError("password is empty")
    config = ConfigFile()
    domain = registry_domain(server)
    known = find_credentials(config, domain)
    if password is None and not username and known is not None:
        print(f"Authenticating with existing credentials... [Username: {known.username}]")
        try:
            return _log_in(config, domain, known, tls_verify)
        except WherryError as error:
            if not sys.stdin.isatty():
                raise
            complain(f"login did not succeed: {error.message}")
    return _log_in(
        config, domain, _ask(username, password, known.username if known else ""), tls_verify
    )


@command(argument("server", required=False))
def logout(server: str) -> int:
    """Log out from a registry"""
    from wherry.config_file import ConfigFile
    from wherry.image.auth import config_key, erase_credentials

    domain = registry_domain(server)
    if erase_credentials(ConfigFile(), domain):
        print(f"Removing login credentials for {config_key(domain)}")
    else:
        print(f"Not logged in to {config_key(domain)}")
    return 0


@command(
    option("-f", "--filter", multiple=True, metavar="filter", help="Filter output by conditions"),
    option("--format", metavar="string", help="Pretty-print search using a Go template"),
    option("--limit", type=int, metavar="int", help="Max number of search results"),
    option("--no-trunc", type=bool, help="Don't truncate output"),
    option("--tls-verify", type=bool, default=True, help="Ask for a certificate to trust"),
    argument("term"),
)
def search(
    term: str, filter: tuple[str, ...], format: str, limit: int, no_trunc: bool, tls_verify: bool
) -> int:
    """Search Docker Hub, or the registry that TERM begins with, for images"""
    from wherry.image.registry import open_registry
    from wherry.image.search import search as search_registry

    if not 0 <= limit <= _MAX_RESULTS:
        raise UsageError(f"limit {limit} is outside the range of [1, {_MAX_RESULTS}]")
    filters = parse_filters(filter, ("is-automated", "is-official", "stars"))
    domain, slash, rest = term.partition("/")
    is_host = slash and ("." in domain or ":" in domain or domain == "localhost")
    registry = open_registry(
        registry_domain(domain if is_host else ""),
        insecure=not tls_verify,
        on_pause=lambda seconds, reason: _warn(f"{reason}; retrying in {seconds:.0f} seconds"),
    )
    found = search_registry(registry, rest if is_host else term, limit or 25)
    wanted = [result for result in found if _agrees(result, filters)]
    print_rows([_row(result, no_trunc) for result in wanted], _RESULTS, template=format)
    return 0


def registry_domain(server: str) -> str:
    """The registry that `login` and `logout` name: a host, an URL, or nothing for docker.io."""
    from wherry.image.reference import DEFAULT_DOMAIN

    host = server.removeprefix("https://").removeprefix("http://").partition("/")[0]
    return DEFAULT_DOMAIN if host in _DOCKER_IO_NAMES else host


def _log_in(config: ConfigFile, domain: str, credentials: Credentials, tls_verify: bool) -> int:
    """Keep `credentials` if the registry takes them."""
    from wherry.image.auth import Credentials as Kept
    from wherry.image.auth import store_credentials
    from wherry.image.registry import open_registry

    registry = open_registry(
        domain, config=config, credentials=credentials, insecure=not tls_verify, keep_identity=True
    )
    registry.check_access()
    token = registry.auth.identity_token or credentials.identity_token
    if token:
        credentials = Kept(username=credentials.username, identity_token=token)
    if file := store_credentials(config, domain, credentials):
        _warn(
            f"\nWARNING! Your credentials are stored unencrypted in '{file}'.\n"
            "Configure a credential helper to remove this warning. See\n"
            "https://docs.docker.com/go/credential-store/\n"
        )
    print("Login Succeeded")
    return 0


def _ask(username: str, password: str | None, default: str) -> Credentials:
    """The credentials, what is missing asked for on the terminal."""
    from wherry.image.auth import Credentials

    if not (username and password) and not sys.stdin.isatty():
        raise UsageError(
            "cannot perform an interactive login from a non TTY device",
            hint="give --username, and the password to --password-stdin",
        )
    if not username:
        print(f"Username ({default}): " if default else "Username: ", end="", flush=True)
        username = sys.stdin.readline().strip() or default
    if not username:
        raise UsageError("username is empty")
    if password is None:
        import getpass

        password = getpass.getpass("Password: ")
    if not password:
        raise UsageError("password is empty")
    return Credentials(username=username, password=password)


def _agrees(result: Found, filters: Filters) -> bool:
    for key, actual in (("is-official", result.is_official), ("is-automated", result.is_automated)):
        wanted = parse_boolean(filters, key)
        if wanted is not None and wanted != actual:
            return False
    return matches(filters, "stars", lambda least: result.stars >= _stars(least))


def _stars(text: str) -> int:
    if not text.isdigit():
        raise UsageError(f"invalid filter 'stars={text}'", hint="use stars=NUMBER")
    return int(text)


def _row(result: Found, no_trunc: bool) -> dict[str, object]:
    description = " ".join(result.description.splitlines())
    if not no_trunc and len(description) > _DESCRIPTION_WIDTH:
        description = description[: _DESCRIPTION_WIDTH - 1] + "…"
    return {
        "Name": result.name,
        "Description": description,
        "StarCount": result.stars,
        "IsOfficial": "[OK]" if result.is_official else "",
        "IsAutomated": "[OK]" if result.is_automated else "",
    }


def _warn(text: str) -> None:
    print(text, file=sys.stderr)
