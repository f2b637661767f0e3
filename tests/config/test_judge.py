"""What only shows with several values in view, each with the way out."""

import pytest

from sstplb.config.loader import parse
from sstplb.config.schema import Transport
from tests.config.samples import (
    GOOD,
    another_backend,
    another_listener,
    another_pool,
    changed,
    in_listener,
    in_pool,
    mistakes,
    reencrypt,
)

SECOND = "name: b, mode: offload, pool: rras, certificates: [{chain: a.pem}]"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (changed("pool: rras", "pool: rass"), "x.yaml:5: listeners[0].pool: there is no pool rass; "
         "did you mean rras?"),
        (in_listener("web_pool: zzz"), "listeners[0].web_pool: there is no pool zzz; known: rras"),
        (in_listener("sni_pools: {a.test: no}"), "sni_pools.a.test: there is no pool no"),
        (in_listener("sni_pools: {'a.*.b': rras}"), "expected a server name such as"),
        (in_listener("sni_pools: {a.test: rras, A.test: rras}"), "in other letters"),
        (in_listener("tenant_pools: {t1: no}"), "tenant_pools.t1: there is no pool no"),
        (in_listener("tenant_pools: {Ab: rras, aB: rras}"), "aB was given before, in other"),
        (in_listener("tenant_pools: {'': rras}"), "listeners[0].tenant_pools."),
        (in_listener("tenant_pools: {a: rras}").replace("mode: offload", "mode: passthrough"),
         "passthrough cannot see the tenant, which is named inside TLS: route by server name"),
        (in_listener("unknown_tenant: refuse").replace("mode: offload", "mode: passthrough"),
         "listeners[0].unknown_tenant: passthrough cannot see the tenant"),
        (changed("mode: offload", "mode: passthrough"), "leave this out, or choose offload or"),
        (changed("certificates: [{chain: a.pem, key: a.key}]", "certificates: []"),
         "list at least one with chain and key"),
        (changed("a.key}", "a.key, key_passphrase: {}}"), "expected either file or env"),
        (changed("a.key}", "a.key, key_passphrase: {file: a, env: B}}"), "either file or env"),
        (in_listener("tls: {min_version: 1.3, max_version: 1.2}"), "no version would be left"),
        (in_pool("tls: {min_version: 1.3, max_version: 1.2}"),
         "pools.rras.tls.min_version: 1.3 is newer than max_version 1.2: no version would be left"),
        (changed("127.0.0.1:443", "vpn.example.test:443"), "expected an IP address to listen on"),
        (in_pool("tls: {verify: pin}"), "pools.rras.tls.verify: pin needs pins"),
        (in_pool(f"tls: {{pins: [{'ab' * 32}]}}"), "set it, or leave the pins out"),
        (in_pool("check: {method: login}"), "login needs the username and password"),
        (in_pool("check: {method: login, username: u}"), "login needs the username and password"),
        (in_pool("check: {expect_regex: '('}"), "is no regular expression"),
        (in_pool("check: {expect_status: [500-400]}"), "500-400 ends before it begins"),
        (in_pool("check: {preset: kemp, method: tcp}"), "kemp imitates an HTTP check"),
        (in_pool("check: {preset: f5, method: sstp}"), "f5 imitates an HTTP check"),
        (in_pool(r"check: {send: '\x'}"), "pools.rras.check.send: cannot be sent"),
        (in_pool("check: {send: 'HEAD / →'}"), "pools.rras.check.send: cannot be sent"),
        (in_pool("check: {interval: 5s, down_after: 4s}"), "would be down between two checks"),
        (in_pool("transport: tls"), "listener vpn needs plain, got tls: leave this out"),
        (in_pool("total_timeout: 1s"), "1s is shorter than the try_timeout of 10s"),
        (in_pool("passive: {back_off: 9m}"), "5m is shorter than the back_off of 9m"),
        (in_pool("transparent_source: true\n    proxy_protocol: v1"), "choose one"),
        (another_backend("name: rras1, address: 10.0.0.12"), "rras1 is the name of another"),
        (another_backend("name: b, address: 10.0.0.11"), "10.0.0.11:80 is the address of another"),
        (another_backend("name: b, address: '10.0.0.11:80'"), "is the address of another backend"),
        (changed("10.0.0.11}", "'10.0.0.11:0'}"),
         "expected a port from 1 to 65535"),
        (another_listener("address: '127.0.0.1:444', " + SECOND.replace("name: b", "name: vpn")),
         "vpn is the name of another listener too"),
        (another_listener("address: '127.0.0.1:443', " + SECOND), "taken by listener vpn already"),
        (another_listener("address: 127.0.0.1, " + SECOND), "taken by listener vpn already"),
        (another_listener("address: '0.0.0.0:443', " + SECOND), "taken by listener vpn already"),
        (another_listener("address: '[::]:443', " + SECOND), "([::] takes IPv4 too)"),
    ],
)  # fmt: skip
def test_mistakes_that_need_several_values_in_view(text: str, said: str) -> None:
    found = mistakes(text)
    assert any(said in problem for problem in found), found
    assert all(problem.startswith("x.yaml:") for problem in found)


def test_one_pool_cannot_speak_both() -> None:
    text = another_listener("name: b, address: '127.0.0.1:444', mode: passthrough, pool: rras")
    assert "make two pools" in mistakes(text)[0]


@pytest.mark.parametrize("address", ["127.0.0.2:443", "127.0.0.1:444", "[::1]:443", "[::]:444"])
def test_addresses_beside_one_another_are_fine(address: str) -> None:
    assert parse(another_listener(f"address: '{address}', {SECOND}"))


def test_the_kernel_chooses_ports_for_as_many_addresses_as_wanted() -> None:
    text = changed("127.0.0.1:443", "127.0.0.1:0")
    assert parse(another_listener(f"address: '127.0.0.2:0', {SECOND}", text))


def test_a_web_pool_may_speak_what_calls_do_not() -> None:
    web = another_pool("web: {transport: tls, backends: [{name: w, address: 10.0.0.21}]}")
    pools = parse(in_listener("web_pool: web", web)).pools
    assert (pools["web"].transport, pools["rras"].transport) == (Transport.TLS, Transport.PLAIN)


def test_a_web_pool_speaks_what_calls_do_unless_told() -> None:
    web = another_pool("web: {backends: [{name: w, address: 10.0.0.21}]}")
    assert parse(in_listener("web_pool: web", web)).pools["web"].transport is Transport.PLAIN
    again = parse(reencrypt(in_listener("web_pool: web", web)))
    assert again.pools["web"].transport is Transport.TLS


def test_the_good_one_is_good() -> None:
    assert parse(GOOD)
