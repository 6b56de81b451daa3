"""The certificates of a host that its machine trusts, too."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest

from support.certificates import Authority
from wherry.errors import UsageError
from wherry_vm.surroundings import authorities
from wherry_vm.surroundings.authorities import Authorities, certificates_in, check

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory where this host's administrator adds certificates."""
    directory = tmp_path / "added"
    directory.mkdir()
    monkeypatch.setattr(authorities, "DIRECTORIES", (str(directory),))
    return directory


def test_what_an_administrator_adds_is_read_when_it_is_there(added: Path, tmp_path: Path) -> None:
    content = Authority(tmp_path / "one").certificate.read_text()
    found = Authorities()
    before = found.read(())

    (added / "company").mkdir()
    (added / "company" / "one.crt").write_text(f"Subject: a comment\n{content}")
    (added / "README").write_text("not a certificate")

    assert before == ""
    assert found.read(()) == content
    (added / "company" / "one.crt").unlink()
    assert found.read(()) == ""


def test_each_certificate_is_told_once_in_any_form(added: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "one")
    content = authority.certificate.read_text()
    (added / "one.cer").write_bytes(ssl.PEM_cert_to_DER_cert(content))

    assert Authorities().read([str(authority.certificate), "/nowhere"]) == content


def test_one_that_is_damaged_does_not_hide_the_others(tmp_path: Path) -> None:
    good = Authority(tmp_path / "one").certificate.read_text()
    bad = good.replace("MI", "!!", 1)

    assert certificates_in((bad + good).encode()) == [good.strip()]
    assert certificates_in(b"nothing of the kind") == []


def test_a_file_that_a_machine_is_to_trust_has_a_certificate(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("")

    with pytest.raises(UsageError, match="no such file"):
        check(str(tmp_path / "missing.pem"))
    with pytest.raises(UsageError, match=r"empty\.pem holds no certificate in PEM"):
        check(str(tmp_path / "empty.pem"))
