"""The tables of a call's states."""

from sstplb.protocol.call import CLIENT_RECEIVES, SERVER_RECEIVES, ClientState, ServerState


def test_the_tables_lead_from_the_opening_to_the_end() -> None:
    for table, first, last in (
        (SERVER_RECEIVES, ServerState.CONNECT_REQUEST_PENDING, ServerState.DISCONNECTED),
        (CLIENT_RECEIVES, ClientState.CONNECT_REQUEST_SENT, ClientState.DISCONNECTED),
    ):
        states = {state for state, _ in table} | set(table.values())
        assert first in states
        assert last in table.values()
        assert all(state is not last for state, _ in table), "nothing is received after the end"
