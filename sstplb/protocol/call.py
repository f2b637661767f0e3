"""The states of a call, as data ([MS-SSTP] 3.2, 3.3).

A call's opening is a short dance after the HTTP heads::

    client                                     server
    CALL_CONNECT_REQUEST  ───────────────────▶  Connect_Request_Pending
    Ack_Received          ◀───────────────────  CALL_CONNECT_ACK (nonce, hashes)
           … PPP: LCP and authentication, as data packets …
    CALL_CONNECTED        ───────────────────▶  Connected (or CALL_ABORT: binding refused)
           … PPP: IPCP, then IP …

The tables below are that dance: (state, message received) → next state, each row with its
section. The simulated RRAS and the caller are driven by them, and whatever is not in a table is an
error in that state. Two messages are legal in any state, on either side, and so stand in no table:
CALL_ABORT is answered with an abort, CALL_DISCONNECT with its acknowledgement, and then the
connection ends (3.1.5.2).

What somebody in the middle sees of it is in ``watcher.py``.
"""

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType

from sstplb.protocol.registry import MessageType


class ServerState(Enum):
    """3.3.1.1: where a server is, once it has sent its 200."""

    CONNECT_REQUEST_PENDING = "Server_Connect_Request_Pending"
    CONNECTED_PENDING = "Server_Call_Connected_Pending"
    CONNECTED = "Server_Call_Connected"
    ABORT_PENDING = "Call_Abort_Pending"
    DISCONNECT_PENDING = "Call_Disconnect_Pending"
    DISCONNECTED = "Server_Call_Disconnected"


class ClientState(Enum):
    """3.2.1.1: where a client is, once it has got its 200."""

    CONNECT_REQUEST_SENT = "Client_Connect_Request_Sent"
    ACK_RECEIVED = "Client_Connect_Ack_Received"
    CONNECTED = "Client_Call_Connected"
    ABORT_PENDING = "Call_Abort_Pending"
    DISCONNECT_PENDING = "Call_Disconnect_Pending"
    DISCONNECTED = "Client_Call_Disconnected"


_M, _S, _C = MessageType, ServerState, ClientState
SERVER_RECEIVES: Mapping[tuple[ServerState, MessageType], ServerState] = MappingProxyType(
    {
        # 3.3.5.2.1
        (_S.CONNECT_REQUEST_PENDING, _M.CALL_CONNECT_REQUEST): _S.CONNECTED_PENDING,
        # 3.3.5.2.3, when the binding holds; else ABORT_PENDING
        (_S.CONNECTED_PENDING, _M.CALL_CONNECTED): _S.CONNECTED,
        # 3.1.5.2: hello, once connected
        (_S.CONNECTED, _M.ECHO_REQUEST): _S.CONNECTED,
        (_S.CONNECTED, _M.ECHO_RESPONSE): _S.CONNECTED,
        # 3.1.5.3, the end of an end
        (_S.ABORT_PENDING, _M.CALL_ABORT): _S.DISCONNECTED,
        (_S.DISCONNECT_PENDING, _M.CALL_DISCONNECT_ACK): _S.DISCONNECTED,
    }
)
"""What a server may receive, besides an abort or a disconnect."""

CLIENT_RECEIVES: Mapping[tuple[ClientState, MessageType], ClientState] = MappingProxyType(
    {
        # 3.2.5.3.1
        (_C.CONNECT_REQUEST_SENT, _M.CALL_CONNECT_ACK): _C.ACK_RECEIVED,
        # 3.2.5.3.2: it may try another protocol; there is none, so it disconnects
        (_C.CONNECT_REQUEST_SENT, _M.CALL_CONNECT_NAK): _C.DISCONNECT_PENDING,
        (_C.CONNECTED, _M.ECHO_REQUEST): _C.CONNECTED,
        (_C.CONNECTED, _M.ECHO_RESPONSE): _C.CONNECTED,
        (_C.ABORT_PENDING, _M.CALL_ABORT): _C.DISCONNECTED,
        (_C.DISCONNECT_PENDING, _M.CALL_DISCONNECT_ACK): _C.DISCONNECTED,
    }
)
"""What a client may receive, besides an abort or a disconnect."""
