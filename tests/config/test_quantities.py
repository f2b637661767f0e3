"""Quantities and addresses: read as they are shown, and nothing left to guesswork."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sstplb.config import quantities
from sstplb.config.quantities import Endpoint, parse_endpoint, parse_network


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0"), (0.5, "500ms"), (660.0, "11m"), (90.0, "90s"), (86400.0, "1d")],
)
def test_durations_read_as_they_are_shown(seconds: float, text: str) -> None:
    assert quantities.format_duration(seconds) == text
    assert quantities.parse_duration(text) == seconds


@given(st.integers(0, 366 * 86_400_000))
def test_any_duration_in_milliseconds_survives_being_shown(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert quantities.parse_duration(quantities.format_duration(seconds)) == pytest.approx(seconds)


@pytest.mark.parametrize("text", [5, True, "5", "-1s", "1 week", "", None, "9" * 400 + "d"])
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        quantities.parse_duration(text)


@pytest.mark.parametrize(("size", "text"), [(512, "512B"), (16384, "16KiB"), (1 << 20, "1MiB")])
def test_sizes_read_as_they_are_shown(size: int, text: str) -> None:
    assert quantities.format_size(size) == text
    assert quantities.parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.11", ("10.0.0.11", None)),
        ("10.0.0.11:443", ("10.0.0.11", 443)),
        ("[::]:443", ("::", 443)),
        ("[2001:DB8:0::1]", ("2001:db8::1", None)),
        ("rras1.example.test:8443", ("rras1.example.test", 8443)),
    ],
)
def test_addresses_are_read(text: str, address: tuple[str, int | None]) -> None:
    assert parse_endpoint(text) == address
    assert parse_endpoint(str(Endpoint(*address))) == address


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("::1:443", "write IPv6 in brackets"),
        ("10.0.0.1:66000", "of at most 65535"),
        ("999.1.1.1", "expected an IP address"),
        ("[10.0.0.1]:443", "expected an IP address"),
        ("https://rras1/", "expected an address such as"),
        ("10.0.0.0/8", "expected an address such as"),
        ("", "expected an address such as"),
        (443, "expected an address such as"),
    ],
)
def test_what_is_no_address_is_refused(text: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_endpoint(text)


def test_networks_are_read() -> None:
    assert parse_network("10.0.0.0/8") == ip_network("10.0.0.0/8")
    assert parse_network("2001:db8::1") == ip_network("2001:db8::1/128")


def test_a_network_with_bits_beyond_its_prefix_is_refused_with_the_one_meant() -> None:
    with pytest.raises(ValueError, match=r"did you mean 10\.0\.0\.0/8\?"):
        parse_network("10.0.0.1/8")
    with pytest.raises(ValueError, match="expected a network"):
        parse_network("office")
