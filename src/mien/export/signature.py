"""C2PA manifests (https://c2pa.org): signed statements inside a picture of who made it and how, which break when it is altered.

Written and read by c2pa-python (MIT or Apache-2.0), the extra `sign`.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from mien import __version__
from mien.errors import DataError, StorageError, UsageError
from mien.storage import atomic, provenance
from mien.storage.regular_file import open_regular

MAX_PEM = 1 << 20  # bytes
PEM = re.compile(r"-----BEGIN ([A-Z ]+)-----.+?-----END \1-----\s*", re.DOTALL)
SIGNED = (".png", ".webp", ".gif", ".mp4")


def library() -> ModuleType:
    """c2pa-python. Raises UsageError where it is not installed."""
    try:
        import c2pa
    except ImportError:
        raise UsageError(
            "Pictures cannot be signed here.", "c2pa-python is not installed.", "pip install 'mien[sign]'"
        ) from None
    module: ModuleType = c2pa
    return module


@dataclass(frozen=True)
class Certificate:
    """A signer: its certificate and those of its issuers, and its private key, as PEM."""

    chain: str
    key: str
    algorithm: str  # of C2PA: es256, es384, es512, ps256, ed25519

    @staticmethod
    def read(path: Path) -> Certificate:
        """A PEM file with the chain, the signer's certificate first, and the key, or the key beside it as NAME.key.

        Raises DataError for a missing part, UsageError where c2pa-python is not installed.
        """
        library()
        text = _pem(path)
        beside = path.with_suffix(".key")
        blocks = list(PEM.finditer(text))
        if not any("PRIVATE KEY" in block[1] for block in blocks) and beside.is_file():
            blocks += PEM.finditer(_pem(beside))
        chain = "".join(block[0] for block in blocks if block[1] == "CERTIFICATE")
        keys = [block[0] for block in blocks if "PRIVATE KEY" in block[1]]
        if not chain or len(keys) != 1:
            raise DataError(
                f"{path} does not hold a signer.",
                f"It has {chain.count('BEGIN')} certificates and {len(keys)} private keys.",
                f"Put the certificate chain and one key into it as PEM, or the key into {beside.name} beside it.",
            )
        return Certificate(chain, keys[0], _algorithm(keys[0], path))

    def sign(self, path: Path) -> None:
        """Sign a picture or a film that mien wrote, in place. Raises UsageError for a format or certificate that C2PA refuses."""
        c2pa = library()
        if path.suffix.lower() not in SIGNED:
            raise UsageError(
                f"{path.name} cannot be signed.",
                "C2PA knows no such file.",
                f"Sign a file that ends in {', '.join(SIGNED)}.",
            )
        marks = provenance.read(path)
        action: dict[str, Any] = {
            "action": "c2pa.created",
            "softwareAgent": {"name": "mien", "version": __version__},
            **({"digitalSourceType": marks.source} if marks.source else {}),
        }
        manifest = {
            "claim_generator_info": [{"name": "mien", "version": __version__}],
            "title": path.name,
            "assertions": [
                {"label": "c2pa.actions.v2", "data": {"actions": [action]}},
                {"label": "mien.recipe", "data": marks.recipe or {}},
            ],
        }
        settings = c2pa.Settings.from_dict({"builder": {"thumbnail": {"enabled": False}}})
        info = c2pa.C2paSignerInfo(self.algorithm.encode(), self.chain.encode(), self.key.encode(), None)
        try:
            with (
                atomic.replacing(path) as temporary,
                c2pa.Context(settings) as context,
                c2pa.Signer.from_info(info) as signer,
                c2pa.Builder(json.dumps(manifest), context) as builder,
            ):
                builder.sign_file(path, temporary, signer)
        except c2pa.C2paError as error:
            raise UsageError(
                f"{path.name} could not be signed.",
                str(error)[:200],
                "Use a certificate for e-mail protection or document signing that a CA issued, and its key.",
            ) from error


def _pem(path: Path) -> str:
    try:
        with open_regular(path) as file:
            return file.read(MAX_PEM).decode("ascii", "replace")
    except FileNotFoundError:
        raise DataError(f"{path} is not there.", "No file has this name.", "Name a PEM file.") from None
    except OSError as error:
        raise StorageError(f"{path} cannot be read.", str(error), "Name a PEM file that you may read.") from error


def _algorithm(key: str, path: Path) -> str:
    """C2PA's name for signatures by this kind of key."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    try:
        private = serialization.load_pem_private_key(key.encode(), None)
    except (ValueError, TypeError) as error:
        raise DataError(
            f"The private key for {path} cannot be read.",
            str(error)[:200],
            "Write it without a password, as PKCS 8: openssl pkcs8 -topk8 -nodes -in OLD -out NEW.",
        ) from error
    if isinstance(private, ec.EllipticCurvePrivateKey):
        return {256: "es256", 384: "es384", 521: "es512"}.get(private.curve.key_size, "es256")
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(private, rsa.RSAPrivateKey):
        return "ps256"
    raise DataError(
        f"The private key for {path} is of a kind that C2PA does not know.",
        type(private).__name__,
        "Use ECDSA, Ed25519 or RSA.",
    )


@dataclass(frozen=True)
class Signature:
    """What a C2PA reader says of a file."""

    state: Literal["none", "unread", "trusted", "valid", "invalid"]  # valid: unaltered, by a signer on no trust list
    signer: str = ""
    why: str = ""  # of invalid: the faults

    def __str__(self) -> str:
        return {
            "none": "none",
            "unread": "there is one, which needs pip install 'mien[sign]' to be read",
            "trusted": f"valid, by {self.signer}, who is on a trust list",
            "valid": f"valid, by {self.signer}, who is on no trust list known here",
            "invalid": f"INVALID: {self.why}",
        }[self.state]


def read(path: Path) -> Signature:
    """The signature of a picture, verified against its bytes."""
    try:
        import c2pa
    except ImportError:
        return Signature("unread" if b"c2pa.claim" in path.read_bytes() else "none")
    if path.suffix.lower() not in SIGNED:
        return Signature("none")
    try:
        offline = c2pa.Settings.from_dict({"verify": {"remote_manifest_fetch": False}})
        with c2pa.Context(offline) as context, c2pa.Reader(os.fspath(path), context=context) as reader:
            state, report = reader.get_validation_state(), json.loads(reader.json())
            signer = reader.get_active_manifest().get("signature_info", {})
    except c2pa.C2paError as error:
        if "ManifestNotFound" in type(error).__name__ + str(error):
            return Signature("none")
        return Signature("invalid", why=str(error)[:200])
    name = (
        " of ".join(str(signer[part]) for part in ("common_name", "issuer") if signer.get(part)) or "an unnamed signer"
    )
    if state in ("Valid", "Trusted"):
        return Signature("trusted" if state == "Trusted" else "valid", name)
    faults = {entry["code"] for entry in report.get("validation_status", ())} - {"signingCredential.untrusted"}
    return Signature("invalid", name, ", ".join(sorted(faults)) or "the reader gives no reason")
