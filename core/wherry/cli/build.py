"""`wherry build`: an image from a Dockerfile."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager

from wherry import origin
from wherry.backend import Command, execute
from wherry.cli.build_options import OPTIONS, epoch, host_config, own_config, refuse, resources
from wherry.cli.grammar import argument, command
from wherry.container.request import pull_options
from wherry.errors import Unsupported, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from contextlib import ExitStack
    from typing import Any

    from wherry.builder.context import Context
    from wherry.builder.export import Output
    from wherry.builder.repositories import Checkout
    from wherry.builder.request import BuildRequest, Given
    from wherry.engine import Engine


@command(
    *OPTIONS,
    argument("path", metavar="PATH|URL|-"),
    usage="[OPTIONS] PATH | URL | -",
    examples="""\
  $ wherry build -t app .                              of the Dockerfile that is here
  $ wherry build -t app -f build/Dockerfile ..         another Dockerfile, another context
  $ wherry build -t app - < Dockerfile                 no context at all
""",
)
def build(**values: Any) -> int:
    """Build an image from a Dockerfile"""
    from contextlib import ExitStack

    values = _on_this_host(values)
    with ExitStack() as stack:
        return _carry_out(values, _request(values, stack))


def _on_this_host(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with what this host's environment and files say to them."""
    from wherry.cli.host import with_profile
    from wherry.config_file import ConfigFile
    from wherry.container.env import read_env_file

    refuse(values)
    proxies = ConfigFile().proxy_environment() if values["http_proxy"] else {}
    lines = [line for path in values["build_arg_file"] for line in read_env_file(path, os.environ)]
    return {
        **values,
        "build_arg": _as_pairs({**proxies, **_pairs(lines), **_pairs(values["build_arg"])}),
        "build_arg_file": (),
        "label": _as_pairs(_pairs(values["label"])),
        "env": _as_pairs(_pairs(values["env"])),
        "security_opt": tuple(map(with_profile, values["security_opt"])),
        "platform": _platforms(values),
        **dict.fromkeys(("arch", "os", "variant"), ""),
    }


def _platforms(values: Mapping[str, Any]) -> tuple[str, ...]:
    """What `--platform` names, several times or between commas, or --os, --arch and --variant."""
    from wherry.cli.host import chosen_platform

    texts = values["platform"] or (os.environ.get("DOCKER_DEFAULT_PLATFORM", ""),)
    names = [name.strip() for text in texts for name in text.split(",")]
    return tuple(filter(None, (chosen_platform({**values, "platform": name}) for name in names)))


def _carry_out(values: Mapping[str, Any], request: BuildRequest) -> int:
    """Build, or tell about the Dockerfile; where it is told to a file, that is standard error."""
    if values["check"] or values["call"] != "build":
        from wherry.builder.calls import call

        return call(request, "check" if values["check"] else values["call"])
    if not values["logfile"]:
        return _build(values, request)
    with open(values["logfile"], "ab", buffering=0) as log, _standard_error(log.fileno()):
        return _build({**values, "logfile": ""}, request)


@contextmanager
def _standard_error(descriptor: int) -> Iterator[None]:
    """While it lasts what goes to standard error goes there."""
    sys.stderr.flush()
    saved = os.dup(2)
    os.dup2(descriptor, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(saved, 2)
        os.close(saved)


def _build(values: Mapping[str, Any], request: BuildRequest) -> int:
    def action(engine: Engine) -> int:
        from wherry.builder.build import build as carry_out

        made = carry_out(engine, request)
        if request.iid_file and made:
            origin.write_file(request.iid_file, made["id"].encode())
        if request.metadata_file and made:
            origin.write_file(request.metadata_file, _metadata(made, request).encode())
        if request.quiet and made:
            print(made["id"])
        return 0

    return execute(
        Command(
            argv=build.argv(**values),
            action=action,
            reads=tuple(filter(None, (values["authfile"],))),
            writes=tuple(filter(None, (request.iid_file, request.metadata_file))),
            secrets=request.secrets,
            elsewhere=lambda forward: _send(values, request, forward),
        )
    )


def _send(values: Mapping[str, Any], request: BuildRequest, forward: Callable[..., int]) -> int:
    """Have another wherry build, and send it what it needs of this host's files."""
    from contextlib import closing

    from wherry.builder.exchange import with_own_place
    from wherry.builder.sending import offer

    if any(text.startswith("/") for text in values["volume"]):
        raise Unsupported(
            "--volume: a build in the machine sees no directory of this host",
            hint="--build-context NAME=DIRECTORY, and RUN --mount=from=NAME, show it one",
        )
    told = {
        **values,
        "path": "-",
        "file": "",
        "sent": True,
        "iidfile": request.iid_file,
        "metadata_file": request.metadata_file,
        "ignorefile": "",
        "build_context": _as_pairs(
            {name: each for name, each in request.contexts.items() if isinstance(each, str)}
        ),
        "secret": tuple(f"id={name},origin=host" for name in request.secrets),
        "ssh": tuple(request.ssh),
        "cache_from": tuple(map(with_own_place, values["cache_from"])),
        "cache_to": tuple(map(with_own_place, values["cache_to"])),
    }
    files = [output for output in request.outputs if not output.is_image]
    if not files:
        with closing(offer(request)) as sender:
            return forward(build.argv(**told), stdin=sender)
    from wherry.builder.export import sent_back
    from wherry.builder.returned import receive

    told["output"] = tuple(map(sent_back, values["output"]))
    with closing(offer(request)) as sender:
        return receive(
            files,
            lambda stdout: forward(build.argv(**told), stdin=sender, stdout=stdout),
        )


def _as_pairs(pairs: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(f"{name}={text}" for name, text in pairs.items())


def _metadata(made: Mapping[str, Any], request: BuildRequest) -> str:
    """What --metadata-file says of the image, with docker's keys."""
    import json

    from wherry.image.reference import parse_reference

    digest = made["descriptor"]["digest"]
    told = {"containerimage.descriptor": made["descriptor"], "containerimage.digest": digest}
    if made["id"] != digest:
        told["containerimage.config.digest"] = made["id"]
    if request.tags:
        told["image.name"] = ",".join(parse_reference(tag).canonical() for tag in request.tags)
    return json.dumps(told, indent=2) + "\n"


def _outputs(values: Mapping[str, Any]) -> tuple[Output, ...]:
    from wherry.builder.export import Output, read_output
    from wherry.values import replace

    found = [read_output(text) for text in values["output"]]
    if values["push"]:
        found.append(Output(kind="registry", push=True))
    if any(output.push for output in found) and not (
        values["tag"] or any(output.names for output in found)
    ):
        raise UsageError("tag is needed when pushing to registry")
    if len(values["platform"]) > 1 and any(output.kind == "docker" for output in found):
        raise Unsupported(
            "docker exporter does not currently support exporting manifest lists",
            hint="type=oci writes the images of several platforms",
        )
    here = [one for one in found if one.dest and one.dest != "-"]
    if sum(one.dest == "-" for one in found) and sys.stdout is not None and sys.stdout.isatty():
        raise UsageError("dest file is required for tar exporter. refusing to write to console")
    moved = {id(one): replace(one, dest=os.path.abspath(one.dest)) for one in here}
    return tuple(moved.get(id(one), one) for one in found)


def _request(values: Mapping[str, Any], stack: ExitStack) -> BuildRequest:
    """What is asked for; what was fetched for it is there until `stack` ends."""
    from wherry.builder.agents import read_agents
    from wherry.builder.context import Context
    from wherry.builder.exchange import read_export, read_import
    from wherry.builder.request import EPOCH, BuildRequest, read_epoch
    from wherry.image.reference import parse_reference
    from wherry.values import replace

    for tag in values["tag"]:
        if parse_reference(tag).digest:
            raise UsageError("refusing to create a tag with a digest reference")
    args = _pairs(values["build_arg"])
    moment = epoch(values, args)
    request = BuildRequest(
        dockerfile="",
        context=Context(""),
        target=values["target"],
        args=args,
        labels=_pairs(values["label"]),
        platforms=values["platform"],
        network=values["network"],
        host_config=host_config(values),
        resources=resources(values),
        own_config=own_config(values),
        base=values["base"],
        env=_pairs(values["env"]),
        unset_env=values["unsetenv"],
        unset_labels=values["unsetlabel"],
        annotations=_pairs(values["annotation"]),
        omits_history=values["omit_history"],
        jobs=values["jobs"],
        contexts=_contexts(values["build_context"], stack),
        secrets=_secrets(values["secret"]),
        ssh=read_agents(values["ssh"]),
        allow=values["allow"],
        caches_from=tuple(map(read_import, values["cache_from"])),
        caches_to=tuple(map(read_export, values["cache_to"])),
        no_cache=values["no_cache"] or not values["layers"],
        no_cache_filter=values["no_cache_filter"],
        pull_options=pull_options(values, policy=values["pull"]),
        tags=values["tag"],
        squash=values["squash"] or not values["layers"],
        squash_all=values["squash_all"],
        outputs=_outputs(values),
        metadata_file=_host_path(values["metadata_file"]),
        progress=values["progress"],
        quiet=values["quiet"] or values["progress"] == "quiet",
        iid_file=_host_path(values["iidfile"]),
        epoch=read_epoch(moment),
    )
    if values["sent"]:
        from wherry.builder.received import receive

        return receive(request)
    text, name, context = _sources(values["path"], values["file"], values["ignorefile"], stack)
    request = replace(request, dockerfile=text, dockerfile_name=name, context=context)
    if moment == "context":
        if context.moment is None:
            raise UsageError(f"{EPOCH}=context: the context is of no commit")
        return replace(request, epoch=context.moment)
    return request


def _host_path(path: str) -> str:
    """A file that the command writes on the host it was typed on."""
    return path if not path or origin.is_elsewhere() else os.path.abspath(path)


def _sources(path: str, file: str, ignore: str, stack: ExitStack) -> tuple[str, str, Context]:
    """The Dockerfile's text, what it is called, and the context."""
    from wherry.builder import context as contexts
    from wherry.builder.repositories import is_repository

    moment = None
    if path == "-" or (path.startswith(("http://", "https://")) and not is_repository(path)):
        directory, text = _arrived(path, stack)
        if not directory:
            return text, "Dockerfile", contexts.Context("")
        file = contexts.inside(directory, file)
        fetched = path if path != "-" else f"- {os.getcwd()}"
    elif is_repository(path):
        tree, fetched = _cloned(path, stack)
        directory, moment = tree.directory, tree.moment
        file = contexts.inside(directory, file)
    elif os.path.isdir(path):
        directory, fetched = os.path.realpath(path), ""
    else:
        raise UsageError(f"unable to prepare context: path {path!r} not found")
    if file == "-":
        text = contexts.decode(sys.stdin.buffer.read())
        context = contexts.local_context(directory, "", ignore, fetched_from=fetched)
        return text, "Dockerfile", context
    found, name = contexts.find_dockerfile(directory, file)
    context = contexts.local_context(directory, found, ignore, fetched_from=fetched)
    context.moment = moment
    return contexts.read_text(found), name, context


def _cloned(url: str, stack: ExitStack) -> tuple[Checkout, str]:
    """What a repository's URL means, and what all of its commits have in common."""
    from wherry.builder.repositories import clone, split_repository

    address, _, subdirectory = split_repository(url)
    return clone(url, _temporary(stack)), f"{address} {subdirectory}"


def _arrived(source: str, stack: ExitStack) -> tuple[str, str]:
    """The directory of an archive on standard input or of a web server, or a Dockerfile's text."""
    from wherry.builder import context as contexts
    from wherry.cli.archive import open_source

    stream = stack.enter_context(open_source(source))
    head = b""
    while len(head) < 512 and (more := stream.read(512 - len(head))):
        head += more
    rest = contexts.Headed(head, stream)
    if contexts.is_archive(head):
        directory = _temporary(stack)
        contexts.unpack_context(rest, directory)
        return directory, ""
    content = b"".join(iter(lambda: rest.read(1 << 16), b""))
    if not content.strip():
        raise UsageError(f"failed to read dockerfile: there is nothing in {source}")
    return "", contexts.decode(content)


def _temporary(stack: ExitStack) -> str:
    from tempfile import TemporaryDirectory

    return stack.enter_context(TemporaryDirectory(prefix="wherry-", ignore_cleanup_errors=True))


def _pairs(texts: Iterable[str]) -> dict[str, str]:
    """`name=value`; a name alone has the value of our environment, or is left out."""
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, content = text.partition("=")
        if equals:
            pairs[name] = content
        elif name in os.environ:
            pairs[name] = os.environ[name]
    return pairs


def _contexts(texts: Iterable[str], stack: ExitStack) -> dict[str, Given]:
    """The contexts that stand for names, and what was fetched for them until `stack` ends."""
    from wherry.builder.context import context_key

    found: dict[str, Given] = {}
    for text in texts:
        name, equals, source = text.partition("=")
        if not equals or not name or not source:
            raise UsageError(f"invalid context value: {text}, expected key=value")
        found[context_key(name)] = _context(name, source, stack)
    return found


def _context(name: str, source: str, stack: ExitStack) -> Given:
    from wherry.builder import context as contexts
    from wherry.builder.downloads import download
    from wherry.builder.repositories import is_repository

    fetched = ""
    if source.startswith("docker-image://"):
        return source
    if source.startswith("oci-layout://"):
        return contexts.image_layout(source.removeprefix("oci-layout://"))
    if is_repository(source):
        tree, fetched = _cloned(source, stack)
        source = tree.directory
    elif source.startswith(("http://", "https://")):
        source, fetched = _temporary(stack), source
        download(fetched, source)
    elif "://" in source:
        raise UsageError(
            f"failed to get build context {name}: {source} is no source of a context",
            hint="it is a directory, the URL of a git repository or of a file, docker-image:// or"
            " oci-layout://",
        )
    if not os.path.isdir(source):
        raise UsageError(f"failed to get build context {name}: {source} is no directory")
    directory = os.path.realpath(source)
    dockerfile = os.path.join(directory, "Dockerfile")
    return contexts.local_context(directory, dockerfile, fetched_from=fetched)


def _secrets(texts: Iterable[str]) -> dict[str, bytes]:
    from wherry.cli.host import read_secrets

    return read_secrets(tuple(_with_source(text) for text in texts))[1]


def _with_source(text: str) -> str:
    """`--secret id=NAME` alone is the variable of this name, or the file."""
    keys = [field.partition("=")[0].strip().lower() for field in text.split(",")]
    if "id" not in keys or {"src", "source", "env", "origin"} & set(keys):
        return text.replace("type=file,", "").replace("type=env,src=", "env=")
    name = next(field for field in text.split(",") if field.startswith("id="))[3:]
    return f"id={name},env={name}" if name in os.environ else f"id={name},src={name}"
