"""`--log-driver` and `--log-opt`: what there is, and what a shared log says of a container."""

from __future__ import annotations

from typing import Any

import pytest

from wherry.container.log_drivers import (
    attributes,
    check_log,
    facility,
    is_kept,
    limits,
    syslog_address,
    tag,
)
from wherry.container.store import Container
from wherry.errors import UsageError


def _host(driver: str, **options: str) -> dict[str, Any]:
    config = {name.replace("_", "-"): text for name, text in options.items()}
    return {"LogConfig": {"Type": driver, "Config": config}}


def _container(**options: str) -> Container:
    body = {
        "Env": ["STAGE=test", "SECRET=x", "STAGE_ID=7"],
        "Labels": {"tier": "web", "team": "a"},
        "HostConfig": _host("json-file", **options),
    }
    record = {"Name": "box", "ImageName": "busybox:1", "Image": f"sha256:{'9' * 64}", "Body": body}
    return Container("0123456789abcdef" * 4, record)


def test_unknown_driver_is_told_with_those_there_are() -> None:
    with pytest.raises(UsageError, match="no log driver named 'fluentd'") as error:
        check_log(_host("fluentd"))

    assert "json-file, local, journald, syslog" in (error.value.hint or "")


@pytest.mark.parametrize(
    ("driver", "options"),
    [
        ("json-file", {"max_size": "10m", "max_file": "3", "compress": "true", "tag": "{{.Name}}"}),
        ("local", {"max_size": "10m", "mode": "non-blocking", "max_buffer_size": "4m"}),
        ("journald", {"labels": "a", "env": "B", "env_regex": "^C", "cache_disabled": "true"}),
        ("syslog", {"syslog_address": "udp://[::1]:1514", "syslog_facility": "local7"}),
        ("passthrough", {}),
        ("none", {}),
    ],
)
def test_dockers_options_are_taken(driver: str, options: dict[str, str]) -> None:
    check_log(_host(driver, **options))


@pytest.mark.parametrize(
    ("driver", "options", "reason"),
    [
        ("json-file", {"nonsense": "1"}, "unknown log opt 'nonsense' for json-file log driver"),
        ("local", {"labels": "a"}, "unknown log opt 'labels' for local log driver"),
        ("none", {"max_size": "1m"}, "invalid logging opts for driver none"),
        ("json-file", {"max_size": "big"}, "invalid value 'big' for log opt 'max-size'"),
        ("json-file", {"max_size": "1q"}, "log opt 'max-size'"),
        ("json-file", {"max_file": "0"}, "log opt 'max-file'"),
        ("json-file", {"max_file": "-3"}, "log opt 'max-file'"),
        ("json-file", {"max_file": "9" * 40}, "log opt 'max-file'"),
        ("json-file", {"compress": "perhaps"}, "log opt 'compress'"),
        ("json-file", {"compress": "true", "max_file": "1"}, "compress cannot be true"),
        ("json-file", {"mode": "quick"}, "logging mode not supported: quick"),
        ("json-file", {"max_buffer_size": "1m"}, "only supported with 'mode=non-blocking'"),
        ("json-file", {"labels_regex": "("}, "log opt 'labels-regex'"),
        ("json-file", {"tag": "{{.Nothing}}"}, "log opt 'tag'"),
        ("json-file", {"tag": "{{.Name"}, "log opt 'tag'"),
        ("syslog", {"syslog_facility": "everything"}, "invalid syslog facility"),
        ("syslog", {"syslog_format": "xml"}, "invalid syslog format"),
        ("syslog", {"syslog_address": "tcp+tls://a:1"}, "unsupported syslog-address"),
        ("syslog", {"syslog_address": "udp://host:99999"}, "unsupported syslog-address"),
        ("syslog", {"syslog_address": "unix://relative"}, "unsupported syslog-address"),
    ],
)
def test_others_are_refused(driver: str, options: dict[str, str], reason: str) -> None:
    with pytest.raises(UsageError) as error:
        check_log(_host(driver, **options))

    assert reason in error.value.message


def test_terminal_is_not_passed_through() -> None:
    with pytest.raises(UsageError, match="--tty"):
        check_log(_host("passthrough"), has_terminal=True)


def test_sizes_are_read_as_docker_reads_them() -> None:
    assert limits({}) == (20 << 20, 5)
    assert limits({"max-size": "10m", "max-file": "3"}) == (10 << 20, 3)
    assert limits({"max-size": "-1"}) == (0, 5)
    assert limits({"cache-max-size": "1k", "cache-max-file": "2"}) == (1024, 2)


def test_what_can_be_read_again() -> None:
    assert is_kept("syslog", {})
    assert not is_kept("syslog", {"cache-disabled": "true"})
    assert not is_kept("none", {})
    assert not is_kept("passthrough", {})


def test_labels_and_variables_are_chosen_by_name_and_by_pattern() -> None:
    container = _container(labels="tier,absent", env="SECRET", env_regex="^STAGE")

    chosen = {"tier": "web", "SECRET": "x", "STAGE": "test", "STAGE_ID": "7"}
    assert attributes(container) == chosen


def test_tag_is_a_template_of_fields() -> None:
    container = _container(tag="{{.ImageName}}/{{ .Name }}/{{.ID}}!")

    assert tag(container) == "busybox:1/box/0123456789ab!"
    assert attributes(container) == {"tag": tag(container)}
    assert tag(_container()) == "0123456789ab"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("", ("unixgram", "/dev/log", 0)),
        ("udp://logs", ("udp", "logs", 514)),
        ("tcp://10.0.0.1:6514", ("tcp", "10.0.0.1", 6514)),
        ("udp://[::1]:1514", ("udp", "::1", 1514)),
        ("unix:///run/log", ("unix", "/run/log", 0)),
    ],
)
def test_syslog_addresses(text: str, address: tuple[str, str, int]) -> None:
    assert syslog_address({"syslog-address": text}) == address


def test_facility_is_a_name_or_a_number() -> None:
    assert facility({}) == 3
    assert facility({"syslog-facility": "local0"}) == 16
    assert facility({"syslog-facility": "5"}) == 5
