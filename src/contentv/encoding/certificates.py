"""`contentv serve certs`: what encode servers and trainers need to trust each other, and only so.

A certificate authority is made, signs one certificate for servers and one for trainers, and its key
is thrown away: nobody can sign a third.
"""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from contentv.base.errors import UserError, WorldError
from contentv.base.files import atomic_dir
from contentv.encoding.config import CertsConfig
from contentv.encoding.tokens import make_token, new_key

_DAY = 86400.0
_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


@dataclass(frozen=True)
class Credentials:
    """What one side shows the other; all but the secret is PEM.

    `secret` is the key that signs tokens on a server's side, a token on a trainer's.
    """

    authority: bytes
    certificate: bytes
    key: bytes
    secret: str


@dataclass(frozen=True)
class CertsResult:
    """Two folders, one for each side."""

    out: Path
    days: int

    def __str__(self) -> str:
        return (
            f"{self.out / 'server'}: for `contentv serve --tls`\n"
            f"{self.out / 'client'}: for trainers\n"
            f"good for {self.days} days; whoever has a folder is let in, so copy it with care"
        )


def run(config: CertsConfig) -> CertsResult:
    """Write the folders server and client.

    Raises:
        UserError: there is something at `out` already.
        WorldError: openssl is not installed, or fails.
    """
    if config.out.exists():
        raise UserError(f"{config.out}: is there already; remove it or choose another --out")
    openssl = shutil.which("openssl")
    if openssl is None:
        raise WorldError("openssl is not installed; install it, or use certificates of your own")
    with atomic_dir(config.out) as part:
        part.chmod(0o700)
        _Authority(openssl, part, config.days).sign_both(config.names)
        key = new_key()
        _write_secret(part / "server" / "token.key", key)
        token = make_token(key, "trainer", seconds=config.days * _DAY)
        _write_secret(part / "client" / "token", token)
    return CertsResult(config.out, config.days)


def read_server(folder: Path) -> Credentials:
    """Read what `contentv serve certs` wrote for servers; UserError when a file is missing."""
    return _read(folder, "token.key")


def read_client(folder: Path) -> Credentials:
    """Read what `contentv serve certs` wrote for trainers; UserError when a file is missing."""
    return _read(folder, "token")


def _read(folder: Path, secret: str) -> Credentials:
    names = ("ca.pem", "cert.pem", "key.pem", secret)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"{folder}: has no {missing[0]}; give the server's or the client's folder that "
            "`contentv serve certs` wrote"
        )
    authority, certificate, key, text = ((folder / name).read_bytes() for name in names)
    return Credentials(authority, certificate, key, text.decode("ascii", "replace").strip())


def _write_secret(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text + "\n", encoding="ascii")


class _Authority:
    """Signs for both sides; lives in a folder that is gone afterwards."""

    def __init__(self, openssl: str, out: Path, days: int) -> None:
        self._openssl, self._out, self._days = openssl, out, str(days)

    def sign_both(self, names: tuple[str, ...]) -> None:
        """Write ca.pem, cert.pem and key.pem of both sides."""
        own = self._out / "authority"
        own.mkdir()
        made = ("-keyout", own / "ca.key", "-out", own / "ca.pem", "-days", self._days)
        who = ("-subj", "/CN=contentv encode authority")
        self._call("req", "-x509", *_CURVE, *made, *who)
        self._sign("server", names)
        self._sign("client", ())
        shutil.rmtree(own)

    def _sign(self, side: str, names: tuple[str, ...]) -> None:
        folder, own = self._out / side, self._out / "authority"
        folder.mkdir()
        request, rules = own / f"{side}.csr", own / f"{side}.ext"
        rules.write_text(_rules(side, names), encoding="ascii")
        asked = ("-keyout", folder / "key.pem", "-out", request)
        self._call("req", *_CURVE, *asked, "-subj", f"/CN=contentv {side}")
        signer = ("-CA", own / "ca.pem", "-CAkey", own / "ca.key", "-CAcreateserial")
        made = ("-out", folder / "cert.pem", "-days", self._days, "-extfile", rules)
        self._call("x509", "-req", "-in", request, *signer, *made)
        (folder / "key.pem").chmod(0o600)
        shutil.copyfile(own / "ca.pem", folder / "ca.pem")

    def _call(self, *arguments: str | Path) -> None:
        done = subprocess.run(  # noqa: S603 - openssl with arguments of our own
            [self._openssl, *map(str, arguments)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["no reason given"]
            raise WorldError(f"openssl {arguments[0]} failed: {lines[-1]}")


def _rules(side: str, names: tuple[str, ...]) -> str:
    lines = ["basicConstraints=critical,CA:FALSE", f"extendedKeyUsage={side}Auth"]
    if names:
        kinds = ("IP" if _is_address(name) else "DNS" for name in names)
        listed = ",".join(f"{kind}:{name}" for kind, name in zip(kinds, names, strict=True))
        lines.append(f"subjectAltName={listed}")
    return "\n".join(lines) + "\n"


def _is_address(name: str) -> bool:
    return ":" in name or name.replace(".", "").isdigit()
