import stat
import subprocess
from pathlib import Path

import pytest
from pydantic import ValidationError

from contentv.base.errors import UserError, WorldError
from contentv.encoding.certificates import read_client, read_server, run
from contentv.encoding.config import CertsConfig
from contentv.encoding.tokens import check_token, make_token, new_key


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("certs") / "made"
    run(CertsConfig(out=out, names=("encoder-1", "10.0.0.7", "::1")))
    return out


def openssl(*arguments: str | Path) -> str:
    words = ["openssl", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def test_each_side_gets_what_it_needs_and_the_authority_is_gone(certs: Path) -> None:
    assert {path.relative_to(certs).as_posix() for path in certs.rglob("*") if path.is_file()} == {
        *(f"server/{name}" for name in ("ca.pem", "cert.pem", "key.pem", "token.key")),
        *(f"client/{name}" for name in ("ca.pem", "cert.pem", "key.pem", "token")),
    }


def test_secrets_are_for_the_owner_only(certs: Path) -> None:
    for name in ("server/key.pem", "server/token.key", "client/key.pem", "client/token"):
        assert stat.S_IMODE((certs / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(certs.stat().st_mode) == 0o700


@pytest.mark.parametrize(("side", "purpose"), [("server", "sslserver"), ("client", "sslclient")])
def test_the_authority_vouches_for_each_side_in_its_role_only(
    certs: Path, side: str, purpose: str
) -> None:
    folder = certs / side
    asked = ("verify", "-CAfile", folder / "ca.pem", "-purpose")
    assert "OK" in openssl(*asked, purpose, folder / "cert.pem")
    other = {"sslserver": "sslclient", "sslclient": "sslserver"}[purpose]
    with pytest.raises(subprocess.CalledProcessError):
        openssl(*asked, other, folder / "cert.pem")


def test_a_servers_names_are_in_its_certificate(certs: Path) -> None:
    text = openssl("x509", "-in", certs / "server" / "cert.pem", "-noout", "-text")
    assert "DNS:encoder-1, IP Address:10.0.0.7, IP Address:0:0:0:0:0:0:0:1" in text


def test_the_token_fits_the_key(certs: Path) -> None:
    assert check_token(read_server(certs / "server").secret, read_client(certs / "client").secret)


def test_what_is_there_is_not_overwritten(certs: Path) -> None:
    with pytest.raises(UserError, match="is there already"):
        run(CertsConfig(out=certs))


def test_the_wrong_folder_is_told(certs: Path) -> None:
    with pytest.raises(UserError, match=r"has no token\.key; give the server's"):
        read_server(certs / "client")


def test_without_openssl(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(WorldError, match="openssl is not installed"):
        run(CertsConfig(out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["", "a,DNS:evil", "a\nb", "a b"])
def test_names_cannot_smuggle(name: str) -> None:
    with pytest.raises(ValidationError, match="must be host names or addresses"):
        CertsConfig(out=Path("x"), names=(name,))


def test_a_token_holds_until_it_expires() -> None:
    key = new_key()
    assert check_token(key, make_token(key, "trainer", seconds=60)) == "trainer"
    with pytest.raises(UserError, match=r"the token expired at \d{4}-"):
        check_token(key, make_token(key, "trainer", seconds=-1))


def test_a_token_cannot_be_made_or_changed_without_the_key() -> None:
    key = new_key()
    body, _, signature = make_token(key, "trainer", seconds=60).partition(".")
    longer = make_token(new_key(), "trainer", seconds=1e6)
    forged = [longer, f"{longer.partition('.')[0]}.{signature}", body, f"{body}.", "", ".", "é.é"]
    for token in [*forged, "x" * 5000]:
        with pytest.raises(UserError, match="not signed with this server's key"):
            check_token(key, token)
