"""Each value's mistake in our words: expected / got, the nearest spelling, and no secret."""

import pytest

from tests.config.samples import GOOD, changed, in_backend, in_listener, in_pool, mistakes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD + "limit: {}", "x.yaml:11: limit: unknown key; did you mean limits?"),
        (GOOD + "zzz: 1", "zzz: unknown key; known here: listeners, pools, workers, limits"),
        (GOOD + "limits: {<<: {a: 1}}", "limits.<<: merging with << is not supported"),
        (GOOD + "limits:", "limits: is empty: give it a value, or leave it out"),
        (GOOD + "limits: 5", "limits: expected a section with keys, got 5"),
        (GOOD + "limits: {idle_timeout: 10}", "expected a duration such as 10s, 500ms or 2m"),
        (GOOD + "limits: {idle_timeout: 0}", "expected at least 1ms: this one cannot be turned"),
        (GOOD + "limits: {idle_timeout: 9999d}", "expected a duration of at most 366d"),
        (GOOD + "limits: {relay_buffer: 16}", "expected a size such as 16KiB"),
        (GOOD + "limits: {relay_buffer: 1GiB}", "expected 1KiB to 16MiB, got 1GiB"),
        (GOOD + "limits: {client_prefix_v4: 33}", "expected at most 32, got 33"),
        (GOOD + "limits: {calls_max: 1.5}", "expected a whole number, got 1.5"),
        (GOOD + "limits: {accept_rate_per_client: 0}", "expected more than 0, got 0"),
        (GOOD + "limits: {accept_rate_per_client: .inf}", "expected a number, got '.inf'"),
        (in_backend("weight: 0"), "backends[0].weight: expected 1 or more, got 0"),
        (in_backend("backup: maybe"), "expected true or false, got 'maybe'"),
        (in_backend("rras_certificate_sha256: ab"), "a SHA-256: 64 hex digits"),
        (changed("name: rras1", "name: a b"), "expected a name of letters, digits"),
        (changed("name: rras1", "name: 5"), "expected text (put it in quotes?), got 5"),
        (changed("mode: offload", "mode: offlod"), "did you mean offload?"),
        (changed("chain: a.pem", "chain: ''"), "expected the path of a file, got nothing"),
        (in_listener("proxy_protocol_from: [10.0.0.1/8]"), "did you mean 10.0.0.0/8?"),
        (in_listener("proxy_protocol_from: [office]"), "expected a network such as 10.0.0.0/8"),
        (in_listener("proxy_protocol_from: 10.0.0.0/8"), "proxy_protocol_from: expected a list"),
        (in_pool("check: {expect_status: [900]}"), "a status such as 401, or a range"),
        (in_pool("check: {http_method: HE AD}"), "a method such as HEAD or GET, got 'HE AD'"),
        (in_pool("check: {path: healthz}"), "a path that begins with / and has no spaces"),
        (in_pool('check: {host: "a\\r\\nb"}'), "a word without spaces"),
        (in_pool("strategy: roundrobin"), "did you mean round_robin?"),
        (changed("10.0.0.11", "rräs.test"), "write xn--rrs-rla.test"),
        (in_pool("tls: {server_name: vpñ.test}"), "expected an ASCII name"),
        ("listeners: []\npools: {}", "x.yaml:1: listeners: expected at least one"),
    ],
)
def test_mistakes_of_one_value(text: str, said: str) -> None:
    (problem,) = [p for p in mistakes(text) if said in p] or [str(mistakes(text))]
    assert said in problem


@pytest.mark.parametrize(
    "password",
    ["geheim", "{text: geheim}", "{geheim}", "{file: [geheim]}", "[geheim]", "{env: a geheim}"],
)
def test_a_secret_in_the_wrong_place_is_not_repeated(password: str) -> None:
    text = in_pool(f"check: {{method: login, username: u, password: {password}}}")
    (said,) = mistakes(text)
    assert said.startswith("x.yaml:9: pools.rras.check.password: expected file or env")
    assert "geheim" not in said


def test_a_long_value_is_cut_short() -> None:
    (said,) = mistakes(changed("name: rras1", f"name: {'x' * 5000}"))
    assert len(said) < 300
