"""The commands of ``sstplb ctl certs`` for a renewal that is rolled server by server.

``sstplb certs rollout`` is the first of them under another name: it is what one looks for there.
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from sstplb.config.quantities import Sha256Hex
from sstplb.control.ctl import tables
from sstplb.control.ctl.group import Asked, asked
from sstplb.control.ctl.names import find_backend
from sstplb.errors import CertificateError
from sstplb.tls.certificate import load_certificate

app = typer.Typer()

Name = Annotated[str, typer.Argument(help="NAME, or POOL/NAME.", metavar="BACKEND")]
UNKNOWN = "unknown"
_SHA256_DIGITS = 64


def show_rollout(by: Asked) -> None:
    """Show where every backend stands. Raises AskError or ConfigError."""
    with by.api() as api:
        page = api.get("certificates", "rollout")
    by.show(page, lambda: tables.rollout(page))


@app.command()
def rollout(context: typer.Context) -> None:
    """Show which backend accepts which certificate, how we know, and what to do next.

    With an old certificate and its renewal in one listener, servers are renewed one by one: drain,
    renew, enable. No call fails.
    """
    show_rollout(asked(context))


@app.command()
def declare(
    context: typer.Context,
    name: Name,
    hash_or_file: Annotated[
        str,
        typer.Argument(
            help=f"SHA-256, a certificate file, or {UNKNOWN}: let it be learnt.",
            metavar="SHA256",
        ),
    ],
) -> None:
    """Say which certificate an offloaded RRAS was told to accept (Enable-SSTPOffload).

    It counts until a reload; ctl save writes it to the file.
    """
    by = asked(context)
    sha256 = None if hash_or_file == UNKNOWN else _sha256(hash_or_file)
    with by.api() as api:
        found = find_backend(api.get("overview"), name)
        shown = api.post(*found.path, "rras_certificate", content={"sha256": sha256})
    accepts = "nobody knows what it accepts" if sha256 is None else f"it accepts {sha256}"
    by.show(shown, lambda: Text(f"{found}: {accepts}"))


def _sha256(given: str) -> Sha256Hex:
    """Return a hash as given, or of the certificate in a file. Raises BadParameter."""
    digits = given.replace(":", "")
    if len(digits) == _SHA256_DIGITS and not Path(given).exists():
        return digits.lower()
    try:
        return load_certificate(Path(given)).sha256.hex()
    except CertificateError as error:
        message = f"expected 64 hex digits, a certificate file or {UNKNOWN}: {error}"
        raise typer.BadParameter(message) from error
