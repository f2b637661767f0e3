"""What loads and will hurt is said, with what to do; what is well gives no warning."""

from pathlib import Path

import pytest

from sstplb.config.loader import load, parse
from sstplb.config.warnings import warnings
from tests.config.samples import (
    GOOD,
    another_pool,
    changed,
    hints,
    in_backend,
    in_listener,
    in_pool,
    reencrypt,
)

CONF = sorted((Path(__file__).parents[2] / "conf").glob("*.yaml"))
HASH = "ab" * 32
WEB = another_pool("web: {backends: [{name: w, address: 10.0.0.21}]}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD + "limits: {idle_timeout: 60s}", "limits.idle_timeout: 1m kills healthy calls"),
        (GOOD + "limits: {idle_timeout: 90s}", "limits.idle_timeout: 90s is less than the 120 s"),
        (GOOD + "limits: {half_closed_timeout: 1h}", "longer than idle_timeout"),
        (GOOD + "tls: {engine: portable, library: libssl.so.3}", "tls.library: has no effect"),
        (
            changed("mode: offload", "mode: passthrough").replace("    certificates", "#")
            + "tls: {ktls: required}",
            "tls.ktls: has no effect",
        ),
        (GOOD + "limits: {calls_max: 5, openings_max: 9}", "limits.openings_max: is more than"),
        (GOOD + "limits: {calls_max: 5, calls_max_per_client: 9}", "calls_max_per_client: is more"),
        (in_listener("calls_max: 9") + "limits: {calls_max: 5}", "listeners[0].calls_max: is more"),
        (in_listener("tls: {max_version: 1.2}"), "listeners[0].tls: TLS 1.3 is off"),
        (in_pool("check: {method: tcp}"), "the port belongs to the kernel's http.sys"),
        (in_pool("check: {timeout: 9s}"), "longer than the interval"),
        (in_pool("check: {method: https}"), "the backends speak plain on the port"),
        (in_pool("check: {method: sstp, path: /x}"), "check.path: has no effect"),
        (in_pool("check: {username: u}"), "check.username: has no effect"),
        (in_pool(r"check: {send: 'HEAD /\r\n', path: /x}"), "check.path: has no effect"),
        (in_pool("check: {down_after: 16s, fall: 5}"), "check.fall: has no effect"),
        (in_pool("proxy_protocol: v1"), "does not understand a PROXY"),
        (in_pool("transparent_source: true"), "needs CAP_NET_ADMIN"),
        (in_pool("total_timeout: 60s"), "clients give up after 60 s"),
        (in_pool("tls: {server_name: a.test}"), "tls: has no effect: these backends speak plain"),
        (in_backend("weight: 5"), "round_robin does not look at weights"),
        (in_backend("standing: off"), "every call will be refused"),
        (in_backend("backup: true"), "every backend is a backup, so none is"),
        (another_pool("spare: {backends: [{name: a, address: 10.1.1.1}]}"), "no listener uses"),
        (in_listener("web_pool: web", WEB), "web.check.path: asks for the SSTP URI"),
        (reencrypt(in_pool("tls: {verify: off}")), "verification is off"),
        (reencrypt(in_pool("tls: {same_certificate: warn}")), "torn down after authentication"),
        (reencrypt(in_backend(f"rras_certificate_sha256: {HASH}")), "only an offloaded RRAS"),
    ],
)
def test_what_will_hurt_is_warned_of(text: str, said: str) -> None:
    found = hints(text)
    assert any(said in hint for hint in found), found


def test_an_offloaded_rras_without_a_declared_hash_is_warned_of() -> None:
    (said,) = warnings(parse(GOOD))
    assert said.path == "pools.rras.backends[0].rras_certificate_sha256"
    assert "sstplb fingerprint" in said.message


@pytest.mark.parametrize(
    "text",
    [
        in_backend(f"rras_certificate_sha256: {HASH}"),
        reencrypt(),
        in_pool("strategy: weighted_round_robin", in_backend("weight: 5")),
        in_pool("check: {preset: kemp, timeout: 8s}"),
        in_pool("check: {method: https, port: 443}"),
        in_pool("check: {method: login, username: u, password: {env: X}}"),
        GOOD + "limits: {calls_max: 5}",
        in_listener("web_pool: web", changed("web: {", "web: {check: {path: /, expect_status: "
                                             "[200]}, ", WEB)),
    ],
)  # fmt: skip
def test_what_is_well_gives_no_warning(text: str) -> None:
    assert hints(text) == []


def test_a_passthrough_listener_has_no_tls_to_set() -> None:
    text = changed("mode: offload", "mode: passthrough", in_listener("tls: {min_version: 1.3}"))
    text = changed("    certificates: [{chain: a.pem, key: a.key}]\n", "", text)
    assert hints(text) == ["listeners[0].tls: has no effect in passthrough: TLS does not end here"]


def test_nobody_can_be_told_in_passthrough() -> None:
    text = changed("mode: offload", "mode: passthrough", in_listener("polite_endings: true"))
    text = changed("    certificates: [{chain: a.pem, key: a.key}]\n", "", text)
    (hint,) = hints(text)
    assert hint.startswith("listeners[0].polite_endings: nobody can be told in passthrough")


def test_a_web_pool_needs_no_declared_hash() -> None:
    found = warnings(parse(in_listener("web_pool: web", WEB)))
    assert [w.path for w in found if w.path.endswith("sha256")] == [
        "pools.rras.backends[0].rras_certificate_sha256"
    ]


@pytest.mark.parametrize("path", CONF, ids=lambda p: p.name)
def test_the_examples_set_nothing_in_vain(path: Path) -> None:
    said = [str(warning) for warning in warnings(load(path))]
    assert [w for w in said if "nobody says which certificate" not in w] == []
