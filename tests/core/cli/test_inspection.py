"""`inspect`, `info` and `version`: documents with docker's types behind their names."""

from __future__ import annotations

from typing import Any

import pytest

from wherry.cli.inspection import format_document, format_documents
from wherry.cli.template import TemplateError

CONTAINER: dict[str, Any] = {
    "Name": "/web",
    "State": {"Status": "running", "Running": True, "ExitCode": 0},
    "Config": {
        "Env": ["A=1", "B=<2>"],
        "Cmd": None,
        "Entrypoint": None,
        "Labels": {"b": "2", "a": "é"},
        "Volumes": None,
    },
    "HostConfig": {
        "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
        "LogConfig": {"Type": "json-file", "Config": {}},
        "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]},
        "Binds": None,
    },
    "Mounts": [{"Type": "bind", "Source": "/srv", "Destination": "/data"}],
    "NetworkSettings": {"Networks": {"Labels": {"IPAddress": "10.0.0.2"}}, "Ports": {}},
}


def show(template: str) -> str:
    return format_document(CONTAINER, template).removesuffix("\n")


def test_inspect_without_format_is_an_indented_list() -> None:
    assert format_documents([{"Name": "é", "Labels": {}, "Mounts": [1]}]) == (
        '[\n    {\n        "Name": "é",\n        "Labels": {},\n        "Mounts": [\n'
        "            1\n        ]\n    }\n]\n"
    )
    assert format_documents([]) == "[]\n"


def test_inspect_as_json_is_one_line() -> None:
    documents: list[dict[str, Any]] = [{"Name": "a<b", "Cmd": None}, {"Name": "c"}]

    assert format_documents(documents, "json") == '[{"Name":"a<b","Cmd":null},{"Name":"c"}]\n'


def test_inspect_template_prints_a_line_for_each_document() -> None:
    assert format_documents([{"Name": "a"}, {"Name": "b"}], "{{.Name}}") == "a\nb\n"


def test_document_as_json_keeps_order_and_nulls() -> None:
    assert show("{{json .Config}}") == (
        '{"Env":["A=1","B=<2>"],"Cmd":null,"Entrypoint":null,'
        '"Labels":{"a":"é","b":"2"},"Volumes":null}'
    )
    assert format_document({"b": 1, "a": None}, "json") == '{"b":1,"a":null}\n'


@pytest.mark.parametrize(
    ("template", "text"),
    [
        # A label that is not there is nothing.
        ("{{.Config.Labels.nope}}", "<no value>"),
        ('{{index .Config.Labels "nope"}}', ""),
        ('{{index .Config.Labels "a"}}', "é"),
        ('{{index .HostConfig.LogConfig.Config "max-size"}}', ""),
        # What JSON calls null is an empty list or map.
        ("{{.Config.Cmd}} {{.Config.Volumes}} {{len .Config.Entrypoint}}", "[] map[] 0"),
        ('{{join .Config.Cmd " "}}', ""),
        ("{{json .HostConfig.Binds}}", "null"),
        ("{{range .HostConfig.Binds}}x{{else}}none{{end}}", "none"),
        # Fields that JSON leaves out are there all the same.
        ("{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}", "none"),
        ("{{if .Config.Healthcheck}}yes{{end}}", ""),
        ("{{range .Mounts}}{{.Name}}:{{.Source}}{{end}}", ":/srv"),
        ("{{.Config.StopSignal}}", ""),
        ("{{range .HostConfig.CapAdd}}{{.}}{{end}}", ""),
        ("{{len .HostConfig.Sysctls}}", "0"),
        ("{{json .HostConfig.Sysctls}}", "null"),
        # Structs print their values, maps their keys as well.
        ("{{.HostConfig.RestartPolicy}}", "{on-failure 3}"),
        ('{{printf "%+v" .HostConfig.RestartPolicy}}', "{Name:on-failure MaximumRetryCount:3}"),
        ("{{.HostConfig.PortBindings}}", "map[80/tcp:[{ 8080}]]"),
        ("{{.Mounts}}", "[{bind /srv /data}]"),
        ("{{.Config.Labels}}", "map[a:é b:2]"),
        # The name of a network says nothing about its type.
        ("{{range $name, $net := .NetworkSettings.Networks}}{{$name}}={{$net}}{{end}}",
         "Labels={10.0.0.2}"),
        ("{{.NetworkSettings.Networks.nope.IPAddress}}", "<no value>"),
        ("{{with .NetworkSettings.Ports}}x{{else}}no ports{{end}}", "no ports"),
    ],
)  # fmt: skip
def test_names_of_fields_tell_their_types(template: str, text: str) -> None:
    assert show(template) == text


@pytest.mark.parametrize(
    ("document", "template", "text"),
    [
        ({"Id": "3f4e"}, "{{.ID}} {{.Id}}", "3f4e 3f4e"),
        ({"Server": {"ApiVersion": "1.50"}}, "{{.Server.APIVersion}}", "1.50"),
        (
            {"time": 1, "Actor": {"Attributes": {"name": "web"}}},
            '{{.Time}} {{.Actor.Attributes.name}}{{index .Actor.Attributes "x"}}',
            "1 web",
        ),
    ],
)
def test_field_is_known_by_its_name_in_docker_and_in_json(
    document: dict[str, Any], template: str, text: str
) -> None:
    assert format_document(document, template) == f"{text}\n"


def test_keys_of_a_map_are_told_apart_by_case() -> None:
    assert format_document({"Labels": {"Tier": "x"}}, "{{.Labels.tier}}") == "<no value>\n"


def test_field_that_docker_does_not_know_is_an_error() -> None:
    with pytest.raises(TemplateError, match=r"<\.State\.Statsu>: can't evaluate field") as raised:
        show("{{.State.Statsu}}")

    assert raised.value.exit_code == 1
    assert raised.value.hint == "there are ExitCode, Running, Status"


def test_malformed_template_ends_inspect_with_dockers_code() -> None:
    with pytest.raises(TemplateError, match="unclosed action") as raised:
        show("{{.State")

    assert raised.value.exit_code == 64
