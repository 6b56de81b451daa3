"""`-v` and `--mount` in docker's grammar."""

from __future__ import annotations

import os
from typing import Any

import pytest

from wherry.container.mount import absolute_bind, mounts_of, parse_bind, parse_mount, write_mount
from wherry.errors import UsageError

CREATED = {"CreateMountpoint": True}


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("/data", {"Type": "volume", "Source": ""}),
        ("vol:/data", {"Type": "volume", "Source": "vol"}),
        (
            "vol:/data:nocopy,ro",
            {
                "Type": "volume",
                "Source": "vol",
                "VolumeOptions": {"NoCopy": True},
                "ReadOnly": True,
            },
        ),
        ("/src:/data", {"Type": "bind", "Source": "/src", "BindOptions": CREATED}),
        (
            "/src:/data/../data/:ro,Z",
            {
                "Type": "bind",
                "Source": "/src",
                "BindOptions": CREATED,
                "ReadOnly": True,
                "Wherry": {"Relabel": "Z"},
            },
        ),
        (
            "/src:/data:rslave",
            {"Type": "bind", "Source": "/src", "BindOptions": {**CREATED, "Propagation": "rslave"}},
        ),
        (
            "/src:/data:U,O,idmap,noexec,nodev",
            {
                "Type": "bind",
                "Source": "/src",
                "BindOptions": CREATED,
                "Wherry": {
                    "Chown": True,
                    "Overlay": True,
                    "IDMap": "",
                    "Flags": ["noexec", "nodev"],
                },
            },
        ),
        (
            "C:\\Users\\x:/data:rw",
            {"Type": "bind", "Source": "C:\\Users\\x", "BindOptions": CREATED, "ReadOnly": False},
        ),
        (
            "\\\\?\\C:\\Users\\x:/data",
            {"Type": "bind", "Source": "\\\\?\\C:\\Users\\x", "BindOptions": CREATED},
        ),
        ("c:/Users/x:/data", {"Type": "bind", "Source": "c:/Users/x", "BindOptions": CREATED}),
        (
            "vol:/data:cached",
            {"Type": "volume", "Source": "vol", "Consistency": "cached"},
        ),
    ],
)
def test_a_volume_option_becomes_a_mount(text: str, mount: dict[str, Any]) -> None:
    assert parse_bind(text) == {**mount, "Target": "/data"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid empty volume spec"),
        (
            "v:/data",
            "volume name is too short, names should be at least two alphanumeric characters",
        ),
        ("::", "invalid volume specification: '::'"),
        ("/a:", "invalid volume specification: '/a:'"),
        ("vol:ro", "invalid volume specification: 'vol:ro'"),
        ("/a:/b:/c:ro", "invalid spec: /a:/b:/c:ro: too many colons"),
        ("/a:/b:bogus", "invalid mode: bogus"),
        ("/a:/b:ro,rw", "invalid mode: ro,rw"),
        ("/a:/b:nocopy", "invalid mode: nocopy"),
        ("vol:/b:rshared", "invalid mode: rshared"),
        (
            "vol:data",
            (
                "invalid mount config for type \"volume\": invalid mount path: 'data' "
                "mount path must be absolute"
            ),
        ),
        ("/a:/", "invalid mount config for type \"bind\": destination can't be '/'"),
        ("/a:/b/..", "invalid mount config for type \"bind\": destination can't be '/'"),
    ],
)
def test_a_wrong_volume_option_is_told_in_dockers_words(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_bind(text)

    assert caught.value.message == message


def test_a_name_that_no_volume_can_have_hints_at_paths() -> None:
    with pytest.raises(UsageError, match="includes invalid characters for a local volume name"):
        parse_bind("some/dir:/data")


def test_a_relative_path_and_a_home_become_absolute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("USERPROFILE", "/home/me")

    assert absolute_bind("./x:/data:ro") == f"{os.path.abspath('x')}:/data:ro"
    assert absolute_bind("..:/data") == f"{os.path.abspath('..')}:/data"
    assert absolute_bind("~/x:/data") == f"{os.path.abspath('/home/me/x')}:/data"
    assert absolute_bind("name:/data") == "name:/data"


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("target=/data", {"Type": "volume"}),
        ("type=volume,src=vol,dst=/data", {"Type": "volume", "Source": "vol"}),
        (
            "type=bind,source=/src,destination=/data,readonly,bind-propagation=rshared",
            {
                "Type": "bind",
                "Source": "/src",
                "ReadOnly": True,
                "BindOptions": {"Propagation": "rshared"},
            },
        ),
        ("type=bind,src=/src,dst=/data,ro=false", {"Type": "bind", "Source": "/src"}),
        (
            "type=bind,src=/src,dst=/data,ro,bind-recursive=readonly,bind-propagation=rprivate",
            {
                "Type": "bind",
                "Source": "/src",
                "ReadOnly": True,
                "BindOptions": {"ReadOnlyForceRecursive": True, "Propagation": "rprivate"},
            },
        ),
        (
            "type=bind,src=/src,dst=/data,bind-recursive=disabled",
            {"Type": "bind", "Source": "/src", "BindOptions": {"NonRecursive": True}},
        ),
        (
            'dst=/data,volume-driver=local,"volume-opt=o=a,b",volume-opt=type=nfs,volume-nocopy',
            {
                "Type": "volume",
                "VolumeOptions": {
                    "NoCopy": True,
                    "DriverConfig": {"Name": "local", "Options": {"o": "a,b", "type": "nfs"}},
                },
            },
        ),
        (
            "src=vol,dst=/data,volume-subpath=a/b,volume-label=x=y",
            {
                "Type": "volume",
                "Source": "vol",
                "VolumeOptions": {"Labels": {"x": "y"}, "Subpath": "a/b"},
            },
        ),
        (
            "type=tmpfs,dst=/data,tmpfs-size=64m,tmpfs-mode=1770",
            {"Type": "tmpfs", "TmpfsOptions": {"SizeBytes": 64 << 20, "Mode": 0o1770}},
        ),
        (
            "type=image,src=busybox,dst=/data,image-subpath=bin",
            {"Type": "image", "Source": "busybox", "ImageOptions": {"Subpath": "bin"}},
        ),
        (
            "type=bind,src=/src,dst=/data,U=true,idmap=uids=0-1-10;gids=0-1-10,relabel=shared",
            {
                "Type": "bind",
                "Source": "/src",
                "Wherry": {"Chown": True, "IDMap": "uids=0-1-10;gids=0-1-10", "Relabel": "z"},
            },
        ),
    ],
)
def test_a_mount_option_is_read_and_can_be_written_again(text: str, mount: dict[str, Any]) -> None:
    expected = {**mount, "Target": "/data"}
    if mount["Type"] == "bind":
        expected["Source"] = os.path.abspath(mount["Source"])

    parsed = parse_mount(text)

    assert parsed == expected
    assert parse_mount(write_mount(parsed)) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x", "invalid field 'x' must be a key=value pair"),
        ("type=volume", "target is required"),
        ("type=cluster,dst=/x", "mount type 'cluster' unknown"),
        ("type=bind,src=/a,dst=/x,foo=bar", "unexpected key 'foo' in 'foo=bar'"),
        ("type=bind,src=/a,dst=/x,ro=maybe", "invalid value for ro: maybe"),
        (
            "type=volume,dst=/x,tmpfs-size=1",
            "cannot mix 'tmpfs-*' options with mount type 'volume'",
        ),
        (
            "type=bind,src=/a,dst=/x,volume-nocopy",
            "cannot mix 'volume-*' options with mount type 'bind'",
        ),
        ("type=bind,dst=/x", "field Source must not be empty"),
        ("type=tmpfs,src=/a,dst=/x", "field Source must be empty"),
        ("type=bind,src=a,dst=/x", "mount path must be absolute"),
        ("type=tmpfs,dst=/x,tmpfs-size=q", "invalid value for tmpfs-size: q"),
        ("type=tmpfs,dst=/x,tmpfs-mode=9", "invalid value for tmpfs-mode: 9"),
        ("type=bind,src=/a,dst=/x,bind-recursive=odd", "invalid value for bind-recursive: odd"),
        (
            "type=bind,src=/a,dst=/x,bind-recursive=readonly",
            "requires 'readonly' to be specified in conjunction",
        ),
        ("src=vol,dst=/x,volume-subpath=../y", "must be a relative path inside the volume"),
    ],
)
def test_a_wrong_mount_option_is_told_in_dockers_words(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_mount(text)

    assert message in caught.value.message


def test_two_mounts_in_one_place_are_refused() -> None:
    with pytest.raises(UsageError, match="Duplicate mount point: /data"):
        mounts_of({"HostConfig": {"Binds": ["/a:/data", "vol:/data/"]}})
    with pytest.raises(UsageError, match="Duplicate mount point: /data"):
        mounts_of({"HostConfig": {"Binds": ["/a:/data"], "Tmpfs": {"/data": ""}}})


def test_a_volume_of_the_image_yields_to_a_mount_in_its_place() -> None:
    mounts = mounts_of(
        {"Volumes": {"/data": {}, "/other": {}}, "HostConfig": {"Binds": ["vol:/data"]}}
    )

    assert [(mount["Source"], mount["Target"]) for mount in mounts] == [
        ("vol", "/data"),
        ("", "/other"),
    ]
