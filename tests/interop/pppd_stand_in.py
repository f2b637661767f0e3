"""Plays pppd for sstp-server: PPP in async HDLC on stdin and stdout, keys on its unix socket.

sstp-server first runs its pppd with ``dryrun`` to learn whether the SSTP plugin is there; exit
status 0 makes it verify the compound MAC of every call. Then it runs one per call with
``LOCAL:REMOTE`` and ``sstp-sock PATH``, and expects the MPPE keys on that socket, as pppd's plugin
would hand them over. Pings and UDP echo are answered inside the tunnel.
"""

import os
import select
import socket
import sys
import time
from ipaddress import IPv4Address

from sstplb.protocol import ipv4, ppp
from sstplb.protocol.hdlc import HdlcReader, encode
from sstplb.protocol.ppp_peer import Authenticated, PppPeer, ServerEnd
from tests.interop.keys import key_message

LIFE_S = 60.0


def main() -> None:
    """Run until the other end is gone."""
    arguments = sys.argv[1:]
    if "dryrun" in arguments:
        return
    local, _, remote = next(a for a in arguments if a.count(".") >= 6 and ":" in a).partition(":")
    key_socket = arguments[arguments.index("sstp-sock") + 1]
    server = ServerEnd({"user": "password"}, IPv4Address(local), IPv4Address(remote))
    peer, reader = PppPeer(server, os.urandom), HdlcReader()
    write(peer.start(time.monotonic()))
    end = time.monotonic() + LIFE_S
    while not peer.terminated and time.monotonic() < end:
        now = time.monotonic()
        wait = min(end, peer.wake_at or end) - now
        if select.select([0], [], [], max(0.0, wait))[0]:
            data = os.read(0, 65536)
            if not data:
                return
            for frame in reader.feed(data):
                write(peer.receive(frame, time.monotonic()))
        else:
            write(peer.wake(time.monotonic()))
        if any(isinstance(event, Authenticated) for event in peer.take_events()):
            hand_over_keys(peer, key_socket)
        for packet in peer.take_packets():
            parsed = ipv4.parse(packet)
            reply = ipv4.answer(parsed) if parsed is not None else None
            if reply is not None:
                write([ppp.encode_frame(ppp.Protocol.IP, reply)])


def hand_over_keys(peer: PppPeer, path: str) -> None:
    """Give sstp-server the keys as *this* end sees them: its send key is the client's receive."""
    assert peer.mppe_keys is not None
    client_send, client_receive = peer.mppe_keys
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        sock.sendall(key_message(send=client_receive, receive=client_send))
        sock.recv(100)


def write(frames: list[bytes]) -> None:
    for frame in frames:
        rest = encode(frame)
        while rest:
            rest = rest[os.write(1, rest) :]


if __name__ == "__main__":
    main()
