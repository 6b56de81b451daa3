"""`wherry build`: an image from a Dockerfile."""

from __future__ import annotations

import os
import sys

from wherry import origin
from wherry.backend import Command, execute
from wherry.builder.progress import STYLES
from wherry.cli.grammar import argument, command, option
from wherry.container import endpoint, limits
from wherry.container.request import PullOptions
from wherry.errors import UsageError
from wherry.words import read_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from contextlib import ExitStack
    from typing import Any

    from wherry.builder.context import Context
    from wherry.builder.export import Output
    from wherry.builder.request import BuildRequest
    from wherry.engine import Engine


@command(
    option("--add-host", multiple=True, metavar="strings", convert=endpoint.read_extra_host,
           help='Add a custom host-to-IP mapping (format: "host:ip")'),
    option("--allow", multiple=True, metavar="stringArray",
           help='Allow extra privileged entitlement (e.g., "network.host", "security.insecure")'),
    option("--build-arg", multiple=True, metavar="stringArray", help="Set build-time variables"),
    option("--build-context", multiple=True, metavar="stringArray",
           help="Additional build contexts (e.g., name=path)"),
    option("--builder", hidden=True),
    option("--compress", type=bool, hidden=True),
    option("-f", "--file", metavar="string",
           help='Name of the Dockerfile (default: "PATH/Dockerfile")'),
    option("--force-rm", type=bool, hidden=True),
    option("--iidfile", metavar="string", help="Write the image ID to a file"),
    option("--label", multiple=True, metavar="stringArray", help="Set metadata for an image"),
    option("--load", type=bool, hidden=True),
    option("--metadata-file", metavar="string", help="Write build result metadata to a file"),
    option("--network", metavar="string",
           help='Set the networking mode for the "RUN" instructions during build'),
    option("--no-cache", type=bool, help="Do not use cache when building the image"),
    option("--no-cache-filter", multiple=True, metavar="stringArray",
           help="Do not cache specified stages"),
    option("-o", "--output", multiple=True, metavar="stringArray",
           help='Output destination (format: "type=local,dest=path")'),
    option("--platform", metavar="string", env="DOCKER_DEFAULT_PLATFORM",
           help="Set target platform for build"),
    option("--progress", metavar="string", choices=STYLES, default="auto",
           env="BUILDKIT_PROGRESS",
           help='Set type of progress output ("auto", "none", "plain", "quiet", "rawjson", "tty")'),
    option("--pull", type=bool, help="Always attempt to pull all referenced images"),
    option("--push", type=bool, help='Shorthand for "--output=type=registry"'),
    option("-q", "--quiet", type=bool,
           help="Suppress the build output and print image ID on success"),
    option("--rm", type=bool, default=True, hidden=True),
    option("--secret", multiple=True, metavar="stringArray",
           help='Secret to expose to the build (format: "id=mysecret[,src=/local/secret]")'),
    option("--shm-size", type=int, convert=read_bytes, metavar="bytes",
           help="Shared memory size for build containers"),
    option("--squash", type=bool, help="Squash newly built layers into a single new layer"),
    option("--ssh", multiple=True, metavar="stringArray",
           help='SSH agent socket to expose to the build (format: "default|<id>[=<socket>]")'),
    option("--sent", type=bool, hidden=True, help="The contexts are another host's"),
    option("-t", "--tag", multiple=True, metavar="stringArray",
           help='Image identifier (format: "[registry/]repository[:tag]")'),
    option("--target", metavar="string", help="Set the target build stage to build"),
    option("--ulimit", multiple=True, metavar="ulimit", help="Ulimit options"),
    argument("path", metavar="PATH|URL|-"),
    usage="[OPTIONS] PATH | URL | -",
    examples="""\
  $ wherry build -t app .                              of the Dockerfile that is here
  $ wherry build -t app -f build/Dockerfile ..         another Dockerfile, another context
  $ wherry build -t app - < Dockerfile                 no context at all
""",
)  # fmt: skip
def build(**values: Any) -> int:
    """Build an image from a Dockerfile"""
    from contextlib import ExitStack

    with ExitStack() as stack:
        return _carry_out(values, _request(values, stack))


def _carry_out(values: Mapping[str, Any], request: BuildRequest) -> int:
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
            writes=tuple(filter(None, (request.iid_file, request.metadata_file))),
            secrets=request.secrets,
            elsewhere=lambda forward: _send(values, request, forward),
        )
    )


def _send(values: Mapping[str, Any], request: BuildRequest, forward: Callable[..., int]) -> int:
    """Have another wherry build, and send it what it needs of this host's files."""
    from wherry.builder.sending import offer

    told = {
        **values,
        "path": "-",
        "file": "",
        "sent": True,
        "iidfile": request.iid_file,
        "metadata_file": request.metadata_file,
        "build_arg": _as_pairs(request.args),
        "label": _as_pairs(request.labels),
        "build_context": _as_pairs(
            {name: each for name, each in request.contexts.items() if isinstance(each, str)}
        ),
        "secret": tuple(f"id={name},origin=host" for name in request.secrets),
        "ssh": tuple(request.ssh),
    }
    files = [output for output in request.outputs if not output.is_image]
    if not files:
        return forward(build.argv(**told), stdin=offer(request))
    from wherry.builder.export import sent_back
    from wherry.builder.returned import receive

    told["output"] = tuple(map(sent_back, values["output"]))
    return receive(
        files,
        lambda descriptor: forward(build.argv(**told), stdin=offer(request), stdout=descriptor),
    )


def _as_pairs(pairs: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(f"{name}={text}" for name, text in pairs.items())


def _metadata(made: Mapping[str, Any], request: BuildRequest) -> str:
    """What --metadata-file says of the image, with docker's keys."""
    import json

    from wherry.image.reference import parse_reference

    told = {
        "containerimage.config.digest": made["id"],
        "containerimage.descriptor": made["descriptor"],
        "containerimage.digest": made["descriptor"]["digest"],
    }
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
    here = [one for one in found if one.dest and one.dest != "-"]
    if sum(one.dest == "-" for one in found) and sys.stdout is not None and sys.stdout.isatty():
        raise UsageError("dest file is required for tar exporter. refusing to write to console")
    moved = {id(one): replace(one, dest=os.path.abspath(one.dest)) for one in here}
    return tuple(moved.get(id(one), one) for one in found)


def _request(values: Mapping[str, Any], stack: ExitStack) -> BuildRequest:
    """What is asked for; what was fetched for it is there until `stack` ends."""
    from wherry.builder.agents import read_agents
    from wherry.builder.context import Context
    from wherry.builder.request import BuildRequest
    from wherry.image.reference import parse_reference
    from wherry.values import replace

    for tag in values["tag"]:
        if parse_reference(tag).digest:
            raise UsageError("refusing to create a tag with a digest reference")
    args = _pairs(values["build_arg"])
    request = BuildRequest(
        dockerfile="",
        context=Context(""),
        target=values["target"],
        args=args,
        labels=_pairs(values["label"]),
        platform=values["platform"],
        network=values["network"],
        hosts=values["add_host"],
        shm_size=values["shm_size"],
        ulimits=tuple(map(limits.read_ulimit, values["ulimit"])),
        contexts=_contexts(values["build_context"]),
        secrets=_secrets(values["secret"]),
        ssh=read_agents(values["ssh"]),
        allow=values["allow"],
        no_cache=values["no_cache"],
        no_cache_filter=values["no_cache_filter"],
        pull=values["pull"],
        pull_options=PullOptions(),
        tags=values["tag"],
        squash=values["squash"],
        outputs=_outputs(values),
        metadata_file=_host_path(values["metadata_file"]),
        progress=values["progress"],
        quiet=values["quiet"] or values["progress"] == "quiet",
        iid_file=_host_path(values["iidfile"]),
        epoch=_epoch(args),
    )
    if values["sent"]:
        from wherry.builder.received import receive

        return receive(request)
    text, name, context = _sources(values["path"], values["file"], stack)
    return replace(request, dockerfile=text, dockerfile_name=name, context=context)


def _host_path(path: str) -> str:
    """A file that the command writes on the host it was typed on."""
    return path if not path or origin.is_elsewhere() else os.path.abspath(path)


def _sources(path: str, file: str, stack: ExitStack) -> tuple[str, str, Context]:
    """The Dockerfile's text, what it is called, and the context."""
    from wherry.builder import context as contexts
    from wherry.builder.sources import clone, is_repository

    if path == "-" or (path.startswith(("http://", "https://")) and not is_repository(path)):
        directory, text = _arrived(path, stack)
        if not directory:
            return text, "Dockerfile", contexts.Context("")
        file = contexts.inside(directory, file)
    elif is_repository(path):
        directory = clone(path, _temporary(stack))
        file = contexts.inside(directory, file)
    elif os.path.isdir(path):
        directory = os.path.realpath(path)
    else:
        raise UsageError(f"unable to prepare context: path {path!r} not found")
    if file == "-":
        text = contexts.decode(sys.stdin.buffer.read())
        return text, "Dockerfile", contexts.local_context(directory, "")
    found, name = contexts.find_dockerfile(directory, file)
    return contexts.read_text(found), name, contexts.local_context(directory, found)


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


def _contexts(texts: Iterable[str]) -> dict[str, Context | str]:
    from wherry.builder.context import local_context

    found: dict[str, Context | str] = {}
    for text in texts:
        name, equals, source = text.partition("=")
        if not equals or not name or not source:
            raise UsageError(f"invalid context value: {text}, expected key=value")
        if "://" in source:
            found[name.lower()] = source
            continue
        if not os.path.isdir(source):
            raise UsageError(f"failed to get build context {name}: {source} is no directory")
        directory = os.path.realpath(source)
        found[name.lower()] = local_context(directory, os.path.join(directory, "Dockerfile"))
    return found


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


def _epoch(args: Mapping[str, str]) -> int | None:
    text = args.get("SOURCE_DATE_EPOCH") or os.environ.get("SOURCE_DATE_EPOCH") or ""
    if not text:
        return None
    if not text.isdecimal():
        raise UsageError(f"invalid SOURCE_DATE_EPOCH: {text}")
    return int(text)
