"""The rig by itself: third-party client and server, without a balancer between them."""

import pytest

from sstplb.lab.pki import Issued
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
