"""The rig by itself: third-party client and server, without a balancer between them."""

import pytest

from sstplb.lab.pki import Issued
from sstplb.protocol.ppp_peer import Authenticated
from tests.characters import play
from tests.interop.rig import client, server

pytestmark = pytest.mark.interop


def test_sstpc_and_sstp_server_speak_and_the_binding_is_verified(rsa: Issued) -> None:
    async def story() -> None:
        async with server("127.0.6.1", rsa) as there, client("127.0.6.1", there.port) as here:
            assert await here.connected(), here.log + there.log
            await there.says("Crypto Binding is valid.")
            assert here.address.startswith("10.9.0.")

    play(story)


def test_a_binding_signed_with_another_key_is_refused(rsa: Issued) -> None:
    """So the server really verifies: the same call with its right key is the test above."""

    async def story() -> None:
        async with (
            server("127.0.6.1", rsa) as there,
            client("127.0.6.1", there.port, wrong_key=True) as here,
        ):
            await there.says("Crypto Binding is invalid.")
            assert not await here.connected()
            assert any(isinstance(event, Authenticated) for event in here.events)
            assert "Crypto Binding is valid." not in there.log

    play(story)
