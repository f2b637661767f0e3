"""A libssl through cffi, in ABI mode: just the calls the native engine makes.

No compiler is needed: the library's interface is stable within a major version. Numbers are from
``openssl/ssl.h``, ``bio.h`` and ``err.h`` of OpenSSL 3; calls that are macros there are written out
(``SSL_CTX_ctrl``).

Which library matters: OpenSSL 3.1 and later seal and open AES-GCM with the wide instructions of
newer processors (VAES), for half the cost. The system has one that Python's own ``ssl`` is linked
with, and that may be older (Debian 12: 3.0); the extra ``openssl`` of our package brings a current
one, as a file in the wheel of ``psycopg-binary``, of which nothing is imported. ``libraries`` has
both, the newer first.

cffi releases the GIL around every call. OpenSSL's error queue is per thread and shared by all
connections, so whoever will ask it why a call failed clears it before the call.
"""

import contextlib
from functools import cache
from importlib import metadata
from typing import Any

from cffi import FFI

_DECLARATIONS = """
typedef struct ssl_ctx_st SSL_CTX; typedef struct ssl_st SSL; typedef struct bio_st BIO;
typedef struct x509_st X509; typedef struct ssl_session_st SSL_SESSION;
unsigned long OpenSSL_version_num(void);
const void *TLS_server_method(void); const void *TLS_client_method(void);
SSL_CTX *SSL_CTX_new(const void *method); void SSL_CTX_free(SSL_CTX *);
long SSL_CTX_ctrl(SSL_CTX *, int command, long number, void *pointer);
uint64_t SSL_CTX_set_options(SSL_CTX *, uint64_t options);
void SSL_CTX_set_default_read_buffer_len(SSL_CTX *, size_t length);
int SSL_CTX_set_cipher_list(SSL_CTX *, const char *);
int SSL_CTX_set_ciphersuites(SSL_CTX *, const char *);
int SSL_CTX_use_certificate_ASN1(SSL_CTX *, int length, const unsigned char *der);
int SSL_CTX_use_PrivateKey_ASN1(int type, SSL_CTX *, const unsigned char *der, long length);
X509 *d2i_X509(X509 **, const unsigned char **der, long length); void X509_free(X509 *);
int i2d_X509(X509 *, unsigned char **out);
long SSL_CTX_set_timeout(SSL_CTX *, long seconds);
int SSL_CTX_set_session_id_context(SSL_CTX *, const unsigned char *, unsigned int length);
int SSL_CTX_load_verify_locations(SSL_CTX *, const char *file, const char *directory);
int SSL_CTX_set_default_verify_paths(SSL_CTX *);
void SSL_CTX_set_verify(SSL_CTX *, int mode, void *callback);
SSL *SSL_new(SSL_CTX *); void SSL_free(SSL *);
long SSL_ctrl(SSL *, int command, long number, const void *pointer);
void SSL_set_accept_state(SSL *); void SSL_set_connect_state(SSL *);
void SSL_set0_rbio(SSL *, BIO *); void SSL_set0_wbio(SSL *, BIO *);
int SSL_do_handshake(SSL *); int SSL_read(SSL *, void *, int); int SSL_has_pending(const SSL *);
int SSL_write(SSL *, const void *, int); int SSL_shutdown(SSL *);
void SSL_set_shutdown(SSL *, int mode); int SSL_get_shutdown(const SSL *);
void SSL_set_quiet_shutdown(SSL *, int mode);
int SSL_get_error(const SSL *, int result); long SSL_get_verify_result(const SSL *);
const char *SSL_get_version(const SSL *);
const void *SSL_get_current_cipher(const SSL *); const char *SSL_CIPHER_get_name(const void *);
X509 *SSL_get1_peer_certificate(const SSL *);
void *SSL_get_peer_cert_chain(const SSL *); X509 *OPENSSL_sk_value(const void *, int);
int SSL_CTX_set_num_tickets(SSL_CTX *, size_t);
SSL_SESSION *SSL_get1_session(SSL *); int SSL_set_session(SSL *, SSL_SESSION *);
int SSL_SESSION_is_resumable(const SSL_SESSION *); void SSL_SESSION_free(SSL_SESSION *);
int SSL_session_reused(const SSL *);
BIO *BIO_new(const void *method); const void *BIO_f_ssl(void); const void *BIO_f_buffer(void);
const void *BIO_s_null(void); BIO *SSL_get_rbio(const SSL *); BIO *SSL_get_wbio(const SSL *);
BIO *BIO_new_socket(int descriptor, int close); BIO *BIO_new_mem_buf(const void *, int length);
BIO *BIO_push(BIO *, BIO *); int BIO_free(BIO *); int BIO_up_ref(BIO *); void BIO_free_all(BIO *);
int BIO_read(BIO *, void *, int);
long BIO_ctrl(BIO *, int command, long number, void *pointer);
void ERR_clear_error(void); unsigned long ERR_get_error(void);
const char *ERR_reason_error_string(unsigned long);
"""

# SSL_CTX_ctrl and SSL_ctrl
SET_EXTRA_CHAIN_CERT = 14
SET_MODE = 33
SET_READ_AHEAD = 41
SET_SESSION_CACHE_MODE = 44
SET_SERVER_NAME = 55
SET_TICKET_KEYS = 59
SET_GROUPS_LIST = 92
SET_MIN_VERSION, SET_MAX_VERSION = 123, 124
# SSL_MODE_*: a buffer that moves, no search for a chain (shown is what is configured), buffers
# given back when empty. Not partial writes: with them SSL_write returns after each record of
# 16 KiB.
MODES = 0x2 | 0x8 | 0x10
# SSL_OP_*: no compression, no renegotiation, the server's order, a ragged end is an end
OPTIONS = 1 << 17 | 1 << 30 | 1 << 22 | 1 << 7
NO_TICKET = 1 << 14
GROUPS_TO_BACKENDS = b"X25519:P-256:P-384:P-521"
"""What Schannel chooses from. OpenSSL 3.5 would send a key share of ML-KEM too: a second segment
for each ClientHello, and a twentieth of what the set-up of a re-encrypted call costs."""
ENABLE_KTLS = 1 << 3
SESSION_CACHE_OFF, SESSION_CACHE_SERVER = 0, 2
VERIFY_PEER = 1
SHUTDOWN_BOTH = 3
TLS12, TLS13 = 0x0303, 0x0304
KEY_RSA, KEY_EC = 6, 408
# SSL_get_error
WANT_READ, WANT_WRITE, SYSCALL, ZERO_RETURN = 2, 3, 5, 6
# BIO_ctrl: BIO_C_SET_SSL, BIO_C_SET_BUF_MEM_EOF_RETURN, BIO_CTRL_PENDING
BIO_SET_SSL, BIO_SET_EOF_RETURN, BIO_PENDING = 109, 130, 10
# BIO_CTRL_GET_KTLS_SEND, BIO_CTRL_GET_KTLS_RECV
BIO_KERNEL_SENDS, BIO_KERNEL_RECEIVES = 73, 76

READ_AHEAD_BYTES = 32768
"""How much OpenSSL takes from the socket at once; without it, two system calls per record."""

SYSTEM = "libssl.so.3"
"""The system's, wherever the dynamic linker finds it."""
CARRIER = "psycopg-binary"
"""The package whose wheel carries the libssl of the extra ``openssl``."""


class OpenSsl:
    """A loaded library."""

    def __init__(self, name: str = SYSTEM) -> None:
        """Load it by file or by name, as dlopen(3) finds it.

        Raises OSError when it cannot be loaded, or is of no use.
        """
        self.offers_kernel = False
        """Whether connections are offered to the kernel (``kernel.py``); set before any is made."""
        self.name = name
        self.ffi: Any = _ffi()
        self.lib: Any = _load(name)
        self.release = _release(self.lib)
        """Major, minor, patch."""

    @property
    def version(self) -> str:
        """The library's version, e.g. ``3.0.19``."""
        return _dotted(self.release)

    @property
    def title(self) -> str:
        """Whose it is, and its version, in words."""
        if self.name == SYSTEM:
            return f"the system's OpenSSL {self.version}"
        whose = "installed with sstplb" if self.name in _carried() else f"of {self.name}"
        return f"OpenSSL {self.version} {whose}"

    def reasons(self) -> list[str]:
        """Empty the error queue; return its reasons in OpenSSL's words, the first one first."""
        found = []
        while code := self.lib.ERR_get_error():
            text = self.lib.ERR_reason_error_string(code)
            found.append(self.ffi.string(text).decode() if text else f"error {code:#x}")
        return found

    def try_out(self) -> None:
        """Make a context. Raises OSError when there is none, as with a wrong openssl.cnf."""
        self.lib.ERR_clear_error()
        context = self.lib.SSL_CTX_new(self.lib.TLS_client_method())
        if not context:
            why = "; ".join(self.reasons()) or "no reason given"
            raise OSError(f"{self.name} makes no TLS context (is OPENSSL_CONF right?): {why}")
        self.lib.SSL_CTX_free(context)


def libraries(wanted: str | None = None) -> list[OpenSsl]:
    """Return the libraries that work, the newest first; the system's before its equal.

    ``wanted``: only this one. Raises OSError when there is none, and says why not.
    """
    if wanted is not None:
        return [_working(wanted)]
    found, failure = [], OSError("there is none")
    for name in (SYSTEM, *_carried()):
        try:
            found.append(_working(name))
        except OSError as error:
            failure = error
    if not found:
        raise failure
    return sorted(found, key=lambda openssl: openssl.release, reverse=True)


def why_extra_is_of_no_use() -> str | None:
    """Say what is wrong with the extra ``openssl``; None: nothing, or it is not installed."""
    for name in _carried():
        try:
            _working(name)
        except OSError as error:
            return str(error)
    return None


def _working(name: str) -> OpenSsl:
    openssl = OpenSsl(name)
    openssl.try_out()
    return openssl


@cache
def _ffi() -> Any:
    ffi = FFI()
    ffi.cdef(_DECLARATIONS)
    return ffi


@cache
def _load(name: str) -> Any:
    """Load a library for good: what it made is freed by it, and a reload may choose another one.

    Raises OSError when it cannot be loaded, is not OpenSSL 3 or later, or lacks anything.
    """
    try:
        lib = _ffi().dlopen(name)
    except OSError as error:
        # Without cffi's own idea of where else to look.
        why, _, _ = str(error).partition(".  Additionally")
        if "/" not in name:
            why = f"the dynamic linker finds no library {name} (give its whole path)"
        raise OSError(why) from error
    for call in ("OpenSSL_version_num", "SSL_CTX_new"):  # libcrypto has a version, too
        if not hasattr(lib, call):
            raise OSError(f"{name} is no libssl: it has no {call}")
    if (release := _release(lib)) < (3,):
        raise OSError(f"{name} is OpenSSL {_dotted(release)}; expected 3.0 or later")
    for call in dir(lib):  # now, not in the middle of a connection
        if not hasattr(lib, call):
            raise OSError(f"{name} is a libssl of another kind: it has no {call}")
    return lib


def _release(lib: Any) -> tuple[int, int, int]:
    number = int(lib.OpenSSL_version_num())
    return number >> 28, number >> 20 & 0xFF, number >> 4 & 0xFFFF


def _dotted(release: tuple[int, ...]) -> str:
    return ".".join(map(str, release))


def _carried() -> list[str]:
    """Return the libssl that the extra ``openssl`` brought, if it is installed."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        files = metadata.files(CARRIER) or ()
        return [str(file.locate()) for file in files if file.name.startswith("libssl")]
    return []
