"""What a listener offers, as one frozen snapshot.

Everything a call needs to know of the configuration hangs on its ``Service``. A reload builds
new ones and swaps them by one assignment (``Listener.service``); a running call keeps the one it
began with, so nothing ever changes under its feet.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from types import MappingProxyType

from sstplb.account.privacy import Discretion
from sstplb.config import schema
from sstplb.config.schema import UnknownTenant
from sstplb.errors import UnknownTenantError, quote
from sstplb.tls.certificate import Certificate
from sstplb.tls.policy import ClientPolicy, ServerPolicy


@dataclass(frozen=True, slots=True)
class Route:
    """A pool, and how its backends are spoken to."""

    pool: str
    config: schema.Pool
    policy: ClientPolicy | None
    """TLS towards the backends; None where they are spoken to in plain, or not by us."""
    carries_sstp: bool = True
    """False for a web pool, where no crypto binding will ever be checked."""

    def server_name(self, backend: schema.Backend, served: Certificate | None) -> str | None:
        """Return the name a backend is asked for, and must prove to have.

        As configured; else the backend's own, if it is known by a name; else the first name in
        the certificate we serve, for both sides hold the same one.
        """
        if self.config.tls.server_name is not None:
            return self.config.tls.server_name
        if backend.address.is_name:
            return backend.address.host
        names = served.names if served is not None else ()
        return names[0] if names else None


@dataclass(frozen=True, slots=True)
class Service:
    """One listener's configuration, certificates and routes."""

    listener: schema.Listener
    limits: schema.Limits
    server_policy: ServerPolicy | None
    """The certificates to serve; None in passthrough."""
    discretion: Discretion
    """What may be told of who calls."""
    route: Route
    routes_by_name: Mapping[str, Route] = field(default_factory=lambda: MappingProxyType({}))
    """Other routes by server name, exact (``vpn.example.test``) or ``*.example.test``."""
    routes_by_tenant: Mapping[str, Route] = field(default_factory=lambda: MappingProxyType({}))
    """Other routes by tenant id, in small letters."""
    web: Route | None = None

    def expects_preface(self, host: str) -> bool:
        """Whether a trusted proxy calls, who will say first who is really calling."""
        networks = self.listener.proxy_protocol_from
        return bool(networks) and any(ip_address(host) in network for network in networks)

    def route_for(self, server_name: str | None, tenant_id: str | None = None) -> Route:
        """Return the route for a client that asked for ``server_name``, and for a tenant.

        The tenant goes first: it is the more particular wish (MS-SSTP 4.6). Raises
        UnknownTenantError.
        """
        if tenant_id is not None:
            if route := self.routes_by_tenant.get(tenant_id.lower()):
                return route
            if self.listener.unknown_tenant is UnknownTenant.REFUSE:
                raise UnknownTenantError(f"there is no pool for tenant {_shown(tenant_id)}")
        if server_name:
            name = server_name.lower().partition(":")[0]
            wildcard = "*." + name.partition(".")[2]
            for key in (name, wildcard):
                if route := self.routes_by_name.get(key):
                    return route
        return self.route


def _shown(tenant_id: str) -> str:
    return quote(tenant_id.encode())
