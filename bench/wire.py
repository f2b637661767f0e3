"""The two kinds of wire a load uses: a plain socket, and TLS on one. Never blocking.

TLS is the system's OpenSSL, through the package's own binding. One thing is added: packets are
written as one record each, but leave through a buffer of 64 KiB, for otherwise the system calls
of the load would cost more than any proxy under test.
"""

import socket

from sstplb.tls.native import NativeConnection, NativeContext, WouldBlockError

_SET_BUFFER_SIZE, _FLUSH = 117, 11  # BIO_C_SET_BUFF_SIZE, BIO_CTRL_FLUSH
READ_BYTES = 262_144
_ROOM = memoryview(bytearray(READ_BYTES))


class Wire:
    """A plain socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock

    def handshake(self) -> bool:
        """Go on shaking hands; return whether it is done."""
        return True

    def read(self) -> bytes | None:
        """Return what has come, ``b""`` at the end, None when nothing is there."""
        try:
            return self.sock.recv(READ_BYTES)
        except BlockingIOError:
            return None

    def write(self, data: bytes | memoryview) -> int:
        """Write what fits; return how much: 0 when the wire is full."""
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0

    def flush(self) -> bool:
        """Hand over what is buffered; return whether all of it is gone."""
        return True

    def close(self) -> None:
        """Let go."""
        self.sock.close()


class TlsWire(Wire):
    """TLS on a socket."""

    def __init__(
        self, sock: socket.socket, context: NativeContext, server_name: str | None = None
    ) -> None:
        super().__init__(sock)
        self._tls = NativeConnection(context, sock.fileno(), server_name=server_name)
        lib, ffi = context.openssl.lib, context.openssl.ffi
        self._lib, self._null = lib, ffi.NULL
        self._buffer = lib.BIO_new(lib.BIO_f_buffer())
        lib.BIO_ctrl(self._buffer, _SET_BUFFER_SIZE, READ_BYTES // 4, ffi.new("int *", 1))
        chain = lib.BIO_push(self._buffer, lib.BIO_new_socket(sock.fileno(), 0))
        lib.SSL_set0_wbio(self._tls._ssl, chain)  # noqa: SLF001 - a load may look inside
        self.wants_write = False

    def handshake(self) -> bool:
        """Go on shaking hands; return whether it is done."""
        try:
            self._tls.handshake()
        except WouldBlockError:
            self.flush()
            return False
        return True

    def read(self) -> bytes | None:
        """Return what has come, ``b""`` at the end, None when nothing is there."""
        count = self._tls.read(_ROOM)
        return None if count is None else bytes(_ROOM[:count])

    def write(self, data: bytes | memoryview) -> int:
        """Write what fits; return how much: 0 when the wire is full."""
        return self._tls.write(memoryview(data))

    def flush(self) -> bool:
        """Hand over what is buffered; return whether all of it is gone."""
        return int(self._lib.BIO_ctrl(self._buffer, _FLUSH, 0, self._null)) > 0

    def close(self) -> None:
        """Let go."""
        self._tls.close()
        self.sock.close()
