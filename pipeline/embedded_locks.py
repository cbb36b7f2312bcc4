"""What keeps everybody else out of the embedded server: a key of its own, without which no inner port answers.

S3 asks for credentials, but SeaweedFS is five servers, whose other ports (HTTP for files and volumes, gRPC for all that
an administrator may do) ask for nothing as they come. Here each wants a client's certificate that this one key has
signed; it is made for one server, and lies in a folder that its user alone can read.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from pathlib import Path

_HTTP = ("master", "volume", "filer", "admin")
_GRPC = (*_HTTP, "s3", "worker", "msg_broker", "msg_agent", "mq", "client")
_NAME = "resprout"


def lock(directory: Path) -> None:
    """Make a server's folder private, and write its key there, and `security.toml`, which it reads where it works."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    certificate, key = directory / "server.crt", directory / "server.key"
    for path, content in zip((certificate, key), _made(), strict=True):
        _write(path, content)
    own = {"cert": certificate, "key": key}
    sections: dict[str, dict[str, object]] = {
        "grpc": {"ca": certificate},
        **{f"grpc.{name}": dict(own) for name in _GRPC},
        **{f"https.{name}": {**own, "ca": certificate} for name in _HTTP},
        "https.client": {**own, "ca": certificate, "enabled": True},
    }
    _write(directory / "security.toml", "".join(map(_section, sections, sections.values())).encode())


def _section(name: str, values: dict[str, object]) -> str:
    lines = [f"{key} = {'true' if value is True else _quoted(str(value))}" for key, value in values.items()]
    return "\n".join([f"[{name}]", *lines, "", ""])


def _quoted(text: str) -> str:
    # a basic string of TOML: a run's folder may have any name
    escaped = "".join(f"\\U{ord(char):08x}" if char in '"\\' or not char.isprintable() else char for char in text)
    return f'"{escaped}"'


def _write(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(content)


def _made() -> tuple[bytes, bytes]:
    """A certificate that is its own authority, and its key, as PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, _NAME)])
    now, day = datetime.datetime.now(datetime.timezone.utc), datetime.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)  # clocks are set back
        .not_valid_after(now + 365 * day)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    form, private = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return certificate.public_bytes(form), key.private_bytes(form, private, serialization.NoEncryption())
