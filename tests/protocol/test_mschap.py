"""The vectors of RFC 2759 9.2 and RFC 3079 3.5.3."""

from sstplb.protocol import mschap

AUTHENTICATOR = bytes.fromhex("5B5D7C7D7B3F2F3E3C2C602132262628")
PEER = bytes.fromhex("21402324255E262A28295F2B3A337C7E")
RESPONSE = bytes.fromhex("82309ECD8D708B5EA08FAA3981CD83544233114A3D85D6DF")


def test_the_response_of_rfc_2759() -> None:
    assert mschap.nt_response(AUTHENTICATOR, PEER, "User", "clientPass") == RESPONSE


def test_the_domain_does_not_count() -> None:
    assert mschap.nt_response(AUTHENTICATOR, PEER, "CORP\\User", "clientPass") == RESPONSE


def test_the_servers_proof_of_rfc_2759() -> None:
    proof = mschap.authenticator_response(AUTHENTICATOR, PEER, "User", "clientPass", RESPONSE)
    assert proof == "S=407A5589115FD0D6209F510FE9C04566932CDA56"


def test_the_send_key_of_rfc_3079() -> None:
    send, receive = mschap.mppe_keys("clientPass", RESPONSE)
    # RFC 3079 gives the server's send key, which is the client's receive key.
    assert receive.hex() == "8b7cdc149b993a1ba118cb153f56dccb"
    assert len(mschap.hlak("clientPass", RESPONSE)) == 32
    assert mschap.hlak("clientPass", RESPONSE) == send + receive
