"""A throw-away certificate authority, made with the openssl program."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.brokers import binary


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path


class Authority:
    """Signs certificates; its own is ``ca``."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._own = Certificate(directory / "ca.pem", directory / "ca.key")
        # Python 3.13 asks of an authority that it says what its key is for.
        usage = ["-addext", "keyUsage = critical, keyCertSign, cRLSign"]
        _openssl(*_REQUEST, "-x509", "-days", "2", "-subj", "/CN=test authority", *usage, *_files(self._own))

    @property
    def ca(self) -> Path:
        """The file that whoever trusts it reads."""
        return self._own.certificate

    def issue(self, name: str, *, days: int = 2) -> Certificate:
        """Sign a certificate for 127.0.0.1; with *days* negative it has expired."""
        issued = Certificate(self._directory / f"{name}.pem", self._directory / f"{name}.key")
        request = self._directory / f"{name}.csr"
        extensions = self._directory / f"{name}.ext"
        extensions.write_text("subjectAltName = IP:127.0.0.1\nauthorityKeyIdentifier = keyid\n")
        _openssl(*_REQUEST, "-subj", f"/CN={name}", "-keyout", str(issued.key), "-out", str(request))
        ca = ["-CA", str(self.ca), "-CAkey", str(self._own.key), "-CAcreateserial"]
        _openssl(
            "x509", "-req", "-in", str(request), *ca, "-days", str(days), "-extfile", str(extensions),
            "-out", str(issued.certificate),
        )  # fmt: skip
        return issued


_REQUEST = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _files(certificate: Certificate) -> list[str]:
    return ["-keyout", str(certificate.key), "-out", str(certificate.certificate)]


def _openssl(*arguments: str) -> None:
    done = subprocess.run([binary("openssl"), *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
