"""The portable TLS engine: ciphertext in, plaintext out, no socket. pyOpenSSL over memory BIOs.

A leg (``net/leg.py``) owns the socket and moves ciphertext; the engine only turns one into the
other. Ragged ends (a FIN without close_notify) are ordinary ends: Windows ends every call so. A
damaged record is an error with a sentence.

``read`` drains as many waiting records as fit into one chunk, for each chunk costs a turn of the
relay whatever its size; ``write`` takes a whole chunk and makes all its records.
"""

import contextlib

from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from sstplb.errors import TlsError
from sstplb.tls.info import TlsInfo
from sstplb.tls.report import RAGGED_END, after_handshake, ragged_end, translate, translate_verify

_RECORD_BYTES = 16384
_OUT_BYTES = 1 << 20


class Engine:
    """One side of one TLS connection."""

    def __init__(self, connection: SSL.Connection) -> None:
        self._connection = connection
        self._eof = False
        self._ended = False
        self._failure: TlsError | None = None
        connection.set_app_data(None)

    @classmethod
    def server(cls, context: SSL.Context) -> "Engine":
        """Return the server's side."""
        connection = SSL.Connection(context, None)
        connection.set_accept_state()
        return cls(connection)

    @classmethod
    def client(cls, context: SSL.Context, server_name: str | None = None) -> "Engine":
        """Return the client's side; ``server_name`` (never an address) is sent as SNI."""
        connection = SSL.Connection(context, None)
        connection.set_connect_state()
        if server_name:
            connection.set_tlsext_host_name(server_name.encode("ascii"))
        return cls(connection)

    # --- ciphertext -----------------------------------------------------------------------------

    def receive_ciphertext(self, data: bytes) -> None:
        """Take bytes from the wire."""
        self._connection.bio_write(data)

    def receive_eof(self) -> None:
        """Note that the wire has ended."""
        self._eof = True
        self._connection.bio_shutdown()

    def ciphertext_to_send(self) -> bytes:
        """Return bytes for the wire, ``b""`` when there are none."""
        pieces = []
        while True:
            try:
                pieces.append(self._connection.bio_read(_OUT_BYTES))
            except SSL.WantReadError:
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    # --- plaintext --------------------------------------------------------------------------------

    def handshake(self) -> bool:
        """Go on shaking hands; False: send what there is to send, then bring more.

        Raises TlsError.
        """
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            if self._eof:
                raise ragged_end() from None
            return False
        except SSL.Error as error:
            refused = self._connection.get_app_data()
            raise (translate(error) if refused is None else translate_verify(refused)) from error
        return True

    def read(self, size_max: int) -> bytes | None:
        """Return plaintext, up to ``size_max`` bytes; None: bring more; ``b""``: the end.

        Raises TlsError when a record is damaged.
        """
        pieces: list[bytes] = []
        room = size_max
        while room and not self._ended and self._failure is None:
            try:
                piece = self._connection.recv(min(room, _RECORD_BYTES))
            except SSL.WantReadError:
                self._ended = self._eof
                break
            except (SSL.ZeroReturnError, SSL.SysCallError):
                self._ended = True
            except SSL.Error as error:
                failure = after_handshake(translate(error))
                if failure.reason == RAGGED_END:
                    self._ended = True  # OpenSSL calls it an error; SSTP does not
                else:
                    self._failure = failure  # first deliver what was whole
                break
            else:
                pieces.append(piece)
                room -= len(piece)
        if not pieces:
            if self._failure is not None:
                raise self._failure
            return b"" if self._ended else None
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def write(self, data: bytes | memoryview) -> None:
        """Turn a whole chunk into records. Raises TlsError after the connection has failed."""
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._connection.send(rest) :]
        except SSL.Error as error:
            raise translate(error) from error

    def close_notify(self) -> None:
        """Make the record that says nothing more will be sent."""
        with contextlib.suppress(SSL.Error):  # after a failure there is nothing to say
            self._connection.shutdown()

    @property
    def info(self) -> TlsInfo:
        """What was agreed; after the handshake."""
        certificate = None
        with contextlib.suppress(ValueError):  # one that cannot be parsed is as good as none
            certificate = self._connection.get_peer_certificate(as_cryptography=True)
            if certificate is None:  # one that was refused is in the chain alone
                chain = self._connection.get_peer_cert_chain(as_cryptography=True)
                certificate = chain[0] if chain else None
        return TlsInfo(
            self._connection.get_protocol_version_name(),
            self._connection.get_cipher_name() or "",
            None if certificate is None else certificate.public_bytes(Encoding.DER),
        )
