"""An SSTP balancer in a hundred lines: TLS offload, affinity, round robin, failover, set-aside.

python examples/hundred_lines.py 0.0.0.0:443 chain.pem key.pem 10.0.0.11:80 10.0.0.12:80
"""

import asyncio
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from time import monotonic as now

from sstplb.balance.pool import Place, Pool
from sstplb.config import quantities, schema
from sstplb.errors import HeadError, NoBackendAvailableError, SstplbError
from sstplb.net import tcp
from sstplb.net.dial import Way, dial
from sstplb.net.leg import Leg, PlainLeg
from sstplb.net.native_leg import server_leg
from sstplb.net.relay import Flow, IdleTooLongError, LegFailedError, Relay, RelayLimits, Transit
from sstplb.protocol.head import HeadReader, HeadT, RequestHead, ResponseHead, simple_answer
from sstplb.tls.certificate import load_identity
from sstplb.tls.policy import ServerPolicy

LIMITS = schema.Limits()  # the defaults of docs/configuration.md
RELAY_LIMITS = RelayLimits(LIMITS.idle_timeout, LIMITS.half_closed_timeout)


class Balancer:
    """Everything that runs: read ``carry``, the story of one call."""

    def __init__(self, files: schema.CertificateFiles, backends: list[str]) -> None:
        self.policy = ServerPolicy(schema.ListenerTls(), [load_identity(files)])
        named = [{"name": f"rras{n}", "address": text} for n, text in enumerate(backends, 1)]
        settings = {"backends": named, "check": {"initially_up": True}}
        self.pool = Pool("rras", schema.Pool.model_validate(settings))
        self.transit = Transit(LIMITS.relay_buffer)

    async def listen(self, address: tcp.Address) -> None:
        """Accept calls until cancelled; each is a task of its own."""
        loop = asyncio.get_running_loop()
        with tcp.listen(address, backlog=1024) as sock:
            async with asyncio.TaskGroup() as calls:
                while True:
                    accepted, (host, *_) = await loop.sock_accept(sock)
                    calls.create_task(self.carry(PlainLeg(accepted, loop), tcp.unmapped(host)))

    async def carry(self, plain: PlainLeg, host: str) -> None:
        """Live one call: TLS, head, a backend that says 200, hand-over, bytes both ways."""
        with ExitStack() as at_end:
            client = server_leg(plain, self.policy.choose(None).context)
            at_end.callback(client.close)
            try:
                async with asyncio.timeout(self.pool.config.total_timeout):
                    await client.handshake()
                    head = await receive_head(client, HeadReader.request(LIMITS.head_bytes_max))
                    if not head.is_sstp:
                        return await client.send(simple_answer(404, "Not Found"))
                    backend, place, answer = await self.find_backend(head, host, at_end)
                    await client.send(answer.raw)
                place.handed_over(now())
                at_end.callback(lambda: place.release(now()))
                await Relay(client, backend, Flow(now()), RELAY_LIMITS, self.transit).run()
            except (SstplbError, IdleTooLongError, LegFailedError, OSError) as error:
                print(f"{host}: {error}", file=sys.stderr)

    async def find_backend(
        self, head: RequestHead, host: str, at_end: ExitStack
    ) -> tuple[Leg, Place, ResponseHead]:
        """Ask candidate after candidate: until it has its 200 the client notices nothing."""
        for candidate in self.pool.candidates(host, now()).backends:
            with ExitStack() as undo, suppress(SstplbError, OSError):
                place = self.pool.reserve(candidate, host, now())
                undo.callback(place.release, now())
                address = candidate.config.address
                leg = await dial(Way((address.host, address.port or 80)))
                undo.callback(leg.close)
                await leg.send(head.raw)
                answer = await receive_head(leg, HeadReader.response(LIMITS.head_bytes_max))
                if answer.status == 200:
                    at_end.enter_context(undo.pop_all())  # not undone before the call is over
                    return leg, place, answer
            candidate.health.call_failed("it did not answer 200", now())
        raise NoBackendAvailableError("no backend answered 200")


async def receive_head(leg: Leg, reader: HeadReader[HeadT]) -> HeadT:
    """Read a head; what came behind it goes back into the leg, for the relay."""
    while (head := reader.feed(data := await leg.receive())) is None:
        if not data:
            raise HeadError("the connection ended before the head did")
    leg.unread(reader.trailing)
    return head


if __name__ == "__main__":
    where, chain, key, *others = sys.argv[1:]
    pair = schema.CertificateFiles(chain=Path(chain), key=Path(key))
    endpoint = quantities.parse_endpoint(where)
    asyncio.run(Balancer(pair, others).listen((endpoint.host, endpoint.port or 443)))
