"""What Windows writes about the same call: its events and error numbers, in words. Pure.

A client's events come from RasClient (Application log) and RasSstp (System log), a server's from
RemoteAccess and RasSstp (System log); each names the call by ``CoId={GUID}``, which is the
SSTPCORRELATIONID header of its request. So one call can be followed through three machines' logs.

The table of numbers holds those that SSTP users meet. Windows shows the same error as a decimal
number (RAS), as ``0x800B0109`` (HRESULT) or as ``0x80070000`` plus a Win32 number.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

TEXT_CHARACTERS_MAX = 2000
_GUID = re.compile(r"\{?([0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12})\}?")
_HRESULT = re.compile(r"\b0x([0-9A-Fa-f]{8})\b")
_NUMBER = re.compile(r"(?:\berror(?: code)?|\bcode|is|=)\D{0,40}?(-?\d{3,10})\b", re.IGNORECASE)
_BARE = re.compile(r"-?\d{3,10}")
_WIN32 = 0x80070000


@dataclass(frozen=True, slots=True)
class Code:
    """An error number, in words, and what to do."""

    words: str
    remedy: str


_ROOT = Code(
    "the client does not trust the root of the certificate it was shown",
    "put the root into the client's store Trusted Root Certification Authorities of the *computer*",
)
CODES: Mapping[int, Code] = MappingProxyType(
    {
        0x800B0109: _ROOT,
        0x800B010A: Code(
            "the client could not build the chain of the certificate it was shown",
            "serve the intermediates too (the file chain: the certificate first, then they)",
        ),
        0x800B0101: Code(
            "the certificate the client was shown has expired, or the client's clock is wrong",
            "renew the certificate; look at the client's clock",
        ),
        0x800B010F: Code(
            "the certificate does not hold the name the client dialled",
            "dial a name that is in the certificate, or issue one with the name that is dialled",
        ),
        0x80092013: Code(
            "the client could not reach the revocation server of the certificate",
            "make its CRL or OCSP address reachable from outside, or issue from a CA whose is",
        ),
        0x80092012: Code(
            "the client could not check whether the certificate is revoked",
            "make the CRL that the certificate names reachable from outside",
        ),
        0x80092010: Code("the certificate is revoked", "issue another one"),
        0x800B010C: Code("the certificate is revoked", "issue another one"),
        0x80072746: Code(
            "the connection was reset by the far end",
            "look which of balancer, firewall or RRAS reset it: our record of the call says",
        ),
        0x8007274C: Code(
            "nobody answered the client's connection",
            "see that the address is right and that nothing on the way filters TCP 443",
        ),
        0x8007274D: Code(
            "the far end refused the client's connection",
            "see that the balancer runs and listens on that address",
        ),
        0x800704C9: Code(
            "the far end refused the connection: RRAS has no port left, or nobody listens",
            "see whether the balancer listens, and how many SSTP ports RRAS has",
        ),
        0x800704D4: Code(
            "the connection was given up by the client's own side",
            "look for a security program on the client, and at its network",
        ),
        0x80070040: Code(
            "the far end closed the connection in the middle",
            "our record of the call says who ended it, and why",
        ),
        0x80072EE7: Code("the client could not resolve the name", "look at the client's DNS"),
        0x80072EFD: Code("the client could not connect", "see that nothing filters TCP 443"),
        0x80072F8F: Code(
            "TLS failed on the client: certificate, clock or version",
            "compare certificate and TLS versions; look at the client's clock",
        ),
        619: Code("a connection could not be established", "look at the other events of the call"),
        628: Code("the far end ended the connection before it was complete",
                  "our record of the call says who did, and why"),
        629: Code("the far end ended the connection", "our record of the call says why"),
        631: Code("the user ended the connection", "nothing"),
        646: Code("logging on is not allowed at this hour", "look at the account's logon hours"),
        647: Code("the account is disabled", "enable it"),
        648: Code("the password has expired", "have the user change it"),
        649: Code("the account has no permission to dial in", "grant it, or have NPS decide"),
        691: Code("wrong user name or password, or the method of authentication is not allowed",
                  "have the user type it again; compare the methods on both sides"),
        718: Code("the far end said nothing in PPP for too long",
                  "look whether the RADIUS server answers RRAS"),
        720: Code("client and RRAS could not agree on a protocol of PPP",
                  "look whether RRAS has addresses left to assign"),
        734: Code("PPP's link control protocol was terminated",
                  "compare the methods of authentication on both sides"),
        741: Code("RRAS does not encrypt as the client wants",
                  "inside SSTP PPP is not encrypted: set the connection to optional encryption"),
        742: Code("the client does not encrypt as RRAS wants",
                  "inside SSTP PPP is not encrypted: have NPS' policy allow no encryption"),
        800: Code("the VPN tunnel could not be made", "look at the other events of the call"),
        806: Code("a device on the way blocks the tunnel", "see that nothing filters TCP 443"),
        807: Code("the network between client and server was interrupted",
                  "look at the client's network; our record says who was silent first"),
        809: Code("no answer from the server", "see that nothing filters TCP 443"),
        812: Code("a policy on the server does not allow this method of authentication",
                  "compare the connection with NPS' policy"),
        828: Code("the connection was idle for too long, and was ended",
                  "raise the idle limit on RRAS or in NPS' policy, if it should not be"),
        829: Code("the far end stopped answering", "look at the client's network"),
        835: Code("the server's certificate does not fit", "compare name and purpose"),
        853: Code("EAP failed", "look into the log of the RADIUS server"),
        868: Code("the name of the server could not be resolved", "look at the client's DNS"),
    }
)  # fmt: skip
"""RAS errors (raserror.h), HRESULTs of certificates (winerror.h), and Win32 numbers as HRESULTs."""

EVENTS: Mapping[tuple[str, int], str] = MappingProxyType(
    {
        ("rasclient", 20221): "the user dials",
        ("rasclient", 20222): "the client tries to reach the server",
        ("rasclient", 20223): "the client has a link to the server",
        ("rasclient", 20224): "the link is established",
        ("rasclient", 20225): "the client is connected",
        ("rasclient", 20226): "the connection has ended",
        ("rasclient", 20227): "dialling failed",
        ("rassstp", 1): "the client's SSTP request failed",
        ("rassstp", 6): "security check failed: the crypto binding was refused",
        ("rassstp", 18): "the certificate hash in the registry has the wrong length: RRAS accepts "
        "no SSTP",
        ("rassstp", 24): "IPv4 and IPv6 are bound to different certificates",
        ("rassstp", 25): "the certificate of SSTP is missing",
        ("rassstp", 32): "SSTP and http.sys have different certificates",
        ("remoteaccess", 20255): "an error in PPP",
        ("remoteaccess", 20271): "the user failed to authenticate",
        ("remoteaccess", 20272): "the user's connection has ended",
        ("remoteaccess", 20274): "the user is connected and has an address",
        ("remoteaccess", 20275): "the user disconnected",
    }
)
"""By provider, in lower case, and number."""


@dataclass(frozen=True, slots=True)
class WindowsEvent:
    """One event of an exported log."""

    at: float
    """Seconds since 1970, by that machine's clock; 0: it does not say."""
    provider: str
    number: int
    computer: str
    text: str
    """Its message where the export has it, else its values."""
    values: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What kind of event it is, in words; empty: we do not know it."""
        return EVENTS.get((self.provider.lower().rpartition("-")[2], self.number), "")

    @property
    def correlation_ids(self) -> frozenset[str]:
        """The calls it is about."""
        found = _GUID.findall(" ".join((self.text, *self.values)))
        return frozenset(canonical(guid) for guid in found)

    @property
    def codes(self) -> tuple[int, ...]:
        """The error numbers in it that we can put into words."""
        found = [int(digits, 16) for digits in _HRESULT.findall(self.text)]
        found += [int(digits) for digits in _NUMBER.findall(self.text)]
        for value in self.values:
            if _BARE.fullmatch(value.strip()):
                found.append(int(value))
            else:
                found += [int(digits, 16) for digits in _HRESULT.findall(value)]
        known = (known_code(number) for number in found)
        return tuple(dict.fromkeys(number for number in known if number is not None))


def canonical(correlation_id: str) -> str:
    """Return a GUID as the header has it: upper case, in braces. As it is, if it is none."""
    found = _GUID.fullmatch(correlation_id.strip())
    return "{" + found[1].upper() + "}" if found else correlation_id


def is_correlation_id(text: str) -> bool:
    """Whether it looks like a GUID, in braces or not."""
    return _GUID.fullmatch(text.strip()) is not None


def known_code(number: int) -> int | None:
    """Return an error number as ``CODES`` has it; None: it is not there."""
    number &= 0xFFFFFFFF
    candidates = (number, number - _WIN32, number + _WIN32)
    return next((candidate for candidate in candidates if candidate in CODES), None)


def shown_code(number: int) -> str:
    """Show an error number as Windows does."""
    return f"0x{number:08X}" if number > 0xFFFF else str(number)
