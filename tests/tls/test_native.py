"""The native engine against the standard library's TLS, and what it leaves behind: nothing."""

import asyncio
import contextlib
import gc
import socket
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.x509 import load_pem_x509_certificate
from OpenSSL.crypto import X509

from sstplb.config.schema import ListenerTls, PoolTls, TlsVersion, Verify
from sstplb.errors import CertificateError, TlsError
from sstplb.lab.pki import Issued, LabPki
from sstplb.net.leg import PlainLeg
from sstplb.net.native_leg import NativeLeg
from sstplb.tls.certificate import Certificate, Identity, load_identity, now_utc
from sstplb.tls.native import NativeContext, Sessions
from sstplb.tls.openssl import OpenSsl, libraries
from sstplb.tls.policy import ClientPolicy
from tests.characters import play

NAME = "vpn.example.test"


@pytest.fixture(params=libraries(), ids=lambda library: library.version)
def openssl(request: pytest.FixtureRequest) -> OpenSsl:
    """Each library that an operator may have loaded; one of its own for each test."""
    return OpenSsl(request.param.name)


def sockets() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        left = socket.create_connection(listening.getsockname())
        right, _ = listening.accept()
    left.setblocking(False)
    right.setblocking(False)
    return left, right


def server_context(issued: Issued, openssl: OpenSsl, **settings: object) -> NativeContext:
    tls = ListenerTls.model_validate(settings)
    return NativeContext.for_clients(openssl, tls, load_identity(issued.files))


@contextlib.asynccontextmanager
async def library_server(issued: Issued) -> AsyncIterator[tuple[str, int]]:
    """A server of the standard library that echoes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.transport.abort()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.chain, issued.key)
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()
    finally:
        server.close()
        await server.wait_closed()


async def client_leg(
    address: tuple[str, int], policy: ClientPolicy, sessions: Sessions | None = None
) -> NativeLeg:
    sock = socket.socket()
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, address)
    assert isinstance(policy.context, NativeContext)
    return NativeLeg(PlainLeg(sock, loop), policy.context, NAME, sessions)


@pytest.mark.parametrize("version", list(TlsVersion))
def test_a_client_of_the_standard_library(
    openssl: OpenSsl, version: TlsVersion, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        ours, theirs = sockets()
        loop = asyncio.get_running_loop()
        context = server_context(served, openssl, min_version=version, max_version=version)
        leg = NativeLeg(PlainLeg(ours, loop), context)
        client = ssl.create_default_context(cafile=str(pki.root_path))
        opening = asyncio.open_connection(sock=theirs, ssl=client, server_hostname=NAME)
        (reader, writer), _ = await asyncio.gather(opening, leg.handshake())
        assert leg.info.version == f"TLSv{version}"
        assert leg.info.peer_leaf_der is None
        writer.write(b"x" * 3_000_000)
        got = 0
        while got < 3_000_000:
            got += len(await leg.receive(100_000))
        await leg.send(b"bye")
        await leg.send_end()
        assert await reader.read() == b"bye"
        writer.transport.abort()
        leg.close()
        leg.close()

    play(story)


def test_a_server_of_the_standard_library_verified(
    openssl: OpenSsl, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        policy = ClientPolicy(PoolTls(verify=Verify.CA, ca_file=pki.root_path), openssl)
        async with library_server(served) as address:
            leg = await client_leg(address, policy)
            await leg.handshake()
            policy.check(leg.info, NAME)
            assert leg.info.peer_leaf_der == served.certificate.leaf_der
            await leg.send(b"echo")
            assert await leg.receive(100) == b"echo"
            leg.close()

    play(story)


@pytest.mark.parametrize("fault", ["expired", "self-signed", "system CAs", "not TLS"])
def test_who_is_not_believed_and_why(
    openssl: OpenSsl, fault: str, pki: LabPki, served: Issued
) -> None:
    reasons = {
        "expired": {"certificate_expired"},
        "self-signed": {"certificate_self_signed", "certificate_untrusted"},
        "system CAs": {"certificate_untrusted"},
        "not TLS": {"not_tls"},
    }
    issued = served
    if fault == "expired":
        issued = pki.issue("expired2", (NAME,), not_after=now_utc() - timedelta(days=1))
    elif fault == "self-signed":
        issued = pki.issue("lonely2", (NAME,), self_signed=True)
    ca_file = None if fault == "system CAs" else pki.root_path
    shown = None if fault == "not TLS" else issued.certificate.leaf_der

    async def story() -> None:
        policy = ClientPolicy(PoolTls(verify=Verify.CA, ca_file=ca_file), openssl)
        if fault == "not TLS":
            ours, theirs = sockets()
            theirs.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            assert isinstance(policy.context, NativeContext)
            leg = NativeLeg(PlainLeg(ours, asyncio.get_running_loop()), policy.context)
            with pytest.raises(TlsError) as caught:
                await leg.handshake()
            theirs.close()
        else:
            async with library_server(issued) as address:
                leg = await client_leg(address, policy)
                with pytest.raises(TlsError) as caught:
                    await leg.handshake()
        assert leg.info.peer_leaf_der == shown, "what was refused is told"
        leg.close()
        assert caught.value.reason in reasons[fault]

    play(story)


@pytest.mark.parametrize("verify", [Verify.OFF, Verify.CA])
def test_a_backend_that_wants_a_client_certificate_is_not_called_untrusted(
    openssl: OpenSsl, verify: Verify, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(served.chain, served.key)
        context.load_verify_locations(pki.root_path)
        context.verify_mode = ssl.CERT_REQUIRED
        context.maximum_version = ssl.TLSVersion.TLSv1_2

        async def refuse(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.transport.abort()

        server = await asyncio.start_server(refuse, "127.0.0.1", 0, ssl=context)
        ca_file = pki.root_path if verify is Verify.CA else None
        policy = ClientPolicy(PoolTls(verify=verify, ca_file=ca_file), openssl)
        leg = await client_leg(server.sockets[0].getsockname(), policy)
        with pytest.raises(TlsError) as caught:
            await leg.handshake()
        leg.close()
        server.close()
        await server.wait_closed()
        # Python's server may or may not get its alert out before it closes.
        assert caught.value.reason in ("handshake_refused", "certificate_required", "tls_closed")

    play(story)


def test_sessions_resume_when_allowed(openssl: OpenSsl, pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        for allowed in (True, False):
            context = server_context(served, openssl, session_resumption=allowed)
            client = ssl.create_default_context(cafile=str(pki.root_path))
            client.maximum_version = ssl.TLSVersion.TLSv1_2
            session: ssl.SSLSession | None = None
            reused = []
            for _ in range(2):
                ours, theirs = sockets()
                leg = NativeLeg(PlainLeg(ours, loop), context)

                def shake(
                    sock: socket.socket = theirs,
                    old: ssl.SSLSession | None = session,
                    client: ssl.SSLContext = client,
                ) -> ssl.SSLSocket:
                    sock.setblocking(True)
                    return client.wrap_socket(sock, server_hostname=NAME, session=old)

                wrapped, _ = await asyncio.gather(asyncio.to_thread(shake), leg.handshake())
                session = wrapped.session
                reused.append(wrapped.session_reused)
                wrapped.close()
                leg.close()
            assert reused == [False, allowed]

    play(story)


def test_intermediates_are_sent_and_bad_settings_are_refused(
    openssl: OpenSsl, served: Issued, pki: LabPki
) -> None:
    identity = load_identity(served.files)
    root = Certificate(load_identity(pki.issue("i", ("i.test",)).files).certificate.leaf)
    chained = Identity(Certificate(identity.certificate.leaf, (root.leaf,)), identity.key)
    NativeContext.for_clients(openssl, ListenerTls(), chained)
    for settings in ({"ciphers": "NONSENSE"}, {"ciphersuites": "NONSENSE"}):
        with pytest.raises(CertificateError, match="OpenSSL refuses"):
            server_context(served, openssl, **settings)
    with pytest.raises(CertificateError, match="no CA certificates"):
        ClientPolicy(PoolTls(verify=Verify.CA, ca_file=served.key), openssl)


def resident_kib() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def test_thousands_of_connections_leave_no_memory_behind(openssl: OpenSsl, served: Issued) -> None:
    """Finished, failed and abandoned ones; closed or left to the garbage collector."""

    async def story() -> None:
        loop = asyncio.get_running_loop()
        server = server_context(served, openssl)
        client = ClientPolicy(PoolTls(verify=Verify.OFF), openssl).context
        assert isinstance(client, NativeContext)

        async def one(number: int) -> None:
            left, right = sockets()
            near, far = PlainLeg(left, loop), PlainLeg(right, loop)
            outer, inner = NativeLeg(near, client, NAME), NativeLeg(far, server)
            if number % 3:
                await asyncio.gather(outer.handshake(), inner.handshake())
                await outer.send(b"x" * 20_000)
                assert await inner.receive(100)
            else:
                left.send(b"garbage, garbage")
                with pytest.raises(TlsError):
                    await inner.handshake()
            if number % 2:
                outer.close()
                inner.close()
            else:
                near.close()
                far.close()

        for number in range(300):
            await one(number)
        gc.collect()
        before = resident_kib()
        for number in range(1500):
            await one(number)
        gc.collect()
        assert resident_kib() - before < 4096

    play(story)


@pytest.mark.parametrize("version", list(TlsVersion))
def test_a_session_with_a_backend_is_resumed_with_the_leaf_remembered(
    openssl: OpenSsl, version: TlsVersion, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        settings = PoolTls(verify=Verify.CA, ca_file=pki.root_path, max_version=version)
        policy = ClientPolicy(settings, openssl)
        resumed: list[bool] = []
        async with library_server(served) as address:
            for _ in range(3):
                leg = await client_leg(address, policy, policy.sessions)
                await leg.handshake()
                policy.check(leg.info, NAME)
                assert leg.info.version == f"TLSv{version}"
                assert leg.info.peer_leaf_der == served.certificate.leaf_der
                await leg.send(b"echo")
                assert await leg.receive(100) == b"echo", "the ticket comes before it"
                resumed.append(leg.is_resumed)
                if len(resumed) == 2:
                    policy.sessions.clear()
                leg.close()
        assert resumed == [False, True, False]

    play(story)


def test_without_a_ca_file_it_trusts_whom_the_machine_trusts(
    openssl: OpenSsl, pki: LabPki, served: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the library was built to look for them."""
    monkeypatch.setenv("SSL_CERT_FILE", str(pki.root_path))
    check_that_it_is_trusted(openssl, served)


def test_a_file_of_cas_that_cannot_be_read_does_not_hide_the_directories(
    openssl: OpenSsl, pki: LabPki, served: Issued, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    certificate = X509.from_cryptography(load_pem_x509_certificate(pki.root_path.read_bytes()))
    (tmp_path / f"{certificate.subject_name_hash():08x}.0").symlink_to(pki.root_path)
    (tmp_path / "damaged.pem").write_text("no certificate")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "damaged.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", f"{tmp_path / 'none'}:{tmp_path}")
    check_that_it_is_trusted(openssl, served)


def check_that_it_is_trusted(openssl: OpenSsl, served: Issued) -> None:
    """Connect to a server of the lab, with the CAs of the machine."""

    async def story() -> None:
        policy = ClientPolicy(PoolTls(verify=Verify.CA), openssl)
        async with library_server(served) as address:
            leg = await client_leg(address, policy)
            await leg.handshake()
            policy.check(leg.info, NAME)
            leg.close()

    play(story)


def test_a_leg_that_rested_goes_on(openssl: OpenSsl, served: Issued) -> None:
    async def story() -> None:
        policy = ClientPolicy(PoolTls(verify=Verify.OFF), openssl)
        async with library_server(served) as address:
            leg = await client_leg(address, policy)
            await leg.handshake()
            for _ in range(3):
                payload = bytes(100_000)  # many records at once make the batch reader
                await leg.send(payload)
                got = 0
                while got < len(payload):
                    got += len(await leg.receive(16384))
                leg.rest()
                leg.rest()
            leg.close()

    play(story)
