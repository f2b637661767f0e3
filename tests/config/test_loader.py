"""Every mistake is found at once, with its line and the way out."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from sstplb.config import describe, schema
from sstplb.config.loader import effective, json_schema, load, parse
from sstplb.config.schema import CheckMethod, Config, Transport, Verify
from sstplb.config.warnings import warnings
from sstplb.errors import ConfigError

ROOT = Path(__file__).parents[2]
CONF = sorted((ROOT / "conf").glob("*.yaml"))

GOOD = """\
listeners:
  - name: vpn
    address: 127.0.0.1:443
    mode: offload
    pool: rras
    certificates: [{chain: a.pem, key: a.key}]
pools:
  rras:
    backends:
      - {name: rras1, address: 10.0.0.11}
"""


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, file="x.yaml")
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("path", CONF, ids=lambda p: p.name)
def test_every_example_loads(path: Path) -> None:
    config = load(path)
    assert config.listeners
    assert effective(config)


def test_the_minimal_example_is_twelve_lines() -> None:
    lines = (ROOT / "conf" / "minimal.yaml").read_text().splitlines()
    assert len([line for line in lines if not line.startswith("#")]) <= 12


def test_full_yaml_and_the_reference_are_what_the_schema_says() -> None:
    """`make docs` writes both."""
    assert (ROOT / "conf" / "full.yaml").read_text() == describe.full_yaml()
    page = (ROOT / "docs" / "configuration.md").read_text()
    assert page == describe.with_reference(page)


def test_full_yaml_shows_every_knob_at_its_default() -> None:
    config = load(ROOT / "conf" / "full.yaml")
    assert config.limits == schema.Limits()
    assert config.log == schema.Log()
    assert config.listeners[0].tls == schema.ListenerTls()
    pool = config.pools["rras"]
    assert (pool.affinity, pool.passive) == (schema.Affinity(), schema.Passive())


def test_every_knob_says_why() -> None:
    def walk(model: type[BaseModel]) -> None:
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name} has no description"
            inner, _ = describe.model_of(field)
            if inner is not None:
                walk(inner)

    walk(Config)


def test_many_mistakes_come_at_once_with_their_lines() -> None:
    text = """\
listeners:
  - name: vpn
    adress: 127.0.0.1:443
    mode: offlode
    pool: rras
pools:
  rras:
    backends: [{name: a b, address: "::1:443", weight: x}]
    check: {interval: 5, expect_status: [900]}
limits:
  idle_timout: 10s
"""
    found = "\n".join(problems(text))
    for expected in (
        "x.yaml:3: listeners[0].adress: unknown key; did you mean address?",
        "x.yaml:2: listeners[0].address: is missing",
        "x.yaml:4: listeners[0].mode: expected 'passthrough', 'offload' or 'reencrypt', got",
        "did you mean offload?",
        "x.yaml:8: pools.rras.backends[0].name: expected a name of letters",
        "write IPv6 in brackets",
        "x.yaml:8: pools.rras.backends[0].weight: expected a whole number, got 'x'",
        "x.yaml:9: pools.rras.check.interval: expected a duration such as 10s, 500ms or 2m, got 5",
        "x.yaml:9: pools.rras.check.expect_status[0]: expected",
        "x.yaml:11: limits.idle_timout: unknown key; did you mean idle_timeout?",
    ):
        assert expected in found, f"{expected}\nnot in\n{found}"
    assert "pydantic" not in found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("pool: rras", "pool: rass"), "there is no pool rass; did you mean rras?"),
        (("mode: offload", "mode: passthrough"), "passthrough shows the backends' own"),
        (("certificates: [{chain: a.pem, key: a.key}]", ""), "needs certificates"),
        (("a.key}", "a.key, key_passphrase: {}}"), "expected either file or env"),
        (("10.0.0.11}", "10.0.0.11, wait: 1}"), "unknown key; did you mean weight?"),
        (("rras:\n    backends", "rras:\n    tls: {verify: pin}\n    backends"), "pin needs pins"),
        (("rras:\n    b", "rras:\n    check: {method: login}\n    b"), "login needs the username"),
        (("rras:\n    b", "rras:\n    check: {expect_regex: '('}\n    b"), "no regular expression"),
        (("rras:\n    b", "rras:\n    check: {expect_status: [500-400]}\n    b"), "ends before"),
        (("rras:\n    b", "rras:\n    transport: tls\n    b"), "listener vpn needs plain, got tls"),
        (("rras:\n    b", "rras:\n    total_timeout: 1s\n    b"), "shorter than try_timeout"),
        (("127.0.0.1:443", "vpn.example.test:443"), "expected an IP address"),
        (("10.0.0.11", "rräs.test"), "write xn--rrs-rla.test"),
        (
            ("rras:\n    b", "rras:\n    tls: {server_name: vpñ.test}\n    b"),
            "expected an ASCII name",
        ),
        (
            ("    mode: offload", "    mode: offload\n    mode: reencrypt"),
            "given before, in line 4",
        ),
        (
            ("10.0.0.11}", "10.0.0.11}\n      - {name: rras1, address: 10.0.0.12}"),
            "another backend",
        ),
    ],
)
def test_what_needs_several_values_in_view(change: tuple[str, str], message: str) -> None:
    text = GOOD.replace(*change)
    assert text != GOOD
    found = problems(text)
    assert any(message in problem for problem in found), found
    assert all(problem.startswith("x.yaml:") for problem in found)


def test_one_pool_cannot_speak_both() -> None:
    second = "  - {name: b, address: '127.0.0.1:444', mode: passthrough, pool: rras}\npools:"
    assert "make two pools" in problems(GOOD.replace("pools:", second))[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("- a", "expected a mapping"),
        ("a: [", "not YAML"),
        ("a: !!python/object:os.system x", "not YAML"),
        ("a: &x [1]\nb: &y [*x,*x]\n<<: 3", "expected plain keys"),
        ("\t", "not YAML"),
    ],
)
def test_what_is_no_document(text: str, message: str) -> None:
    assert message in problems(text)[0]


def test_a_bomb_of_aliases_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert "at most" in problems("\n".join(lines))[-1]


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    for name in ("gone.yaml", "."):
        with pytest.raises(ConfigError, match="cannot be read"):
            load(tmp_path / name)
    (tmp_path / "odd.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="UTF-8"):
        load(tmp_path / "odd.yaml")


def test_what_follows_from_elsewhere_is_filled_in(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(GOOD)
    config = load(tmp_path / "x.yaml")
    pool = config.pools["rras"]
    assert pool.transport is Transport.PLAIN
    assert pool.backends[0].address == ("10.0.0.11", 80)
    assert pool.check.method is CheckMethod.HTTP
    assert config.listeners[0].certificates[0].chain == tmp_path / "a.pem"
    passed = parse((ROOT / "conf" / "minimal.yaml").read_text())
    assert passed.pools["rras"].backends[0].address.port == 443
    assert passed.pools["rras"].tls.verify is Verify.OFF
    assert passed.pools["rras"].check.method is CheckMethod.HTTPS
    again = parse((ROOT / "conf" / "reencrypt.yaml").read_text())
    assert again.pools["rras"].tls.verify is Verify.CA


def test_the_effective_configuration_loads_to_the_same() -> None:
    for path in CONF:
        config = load(path)
        assert parse(effective(config), base=path.parent) == config


def test_secrets_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSTPLB_SECRET", "hunter2")
    text = GOOD.replace(
        "rras:\n    b",
        "rras:\n    check: {method: login, username: u, password: {env: SSTPLB_SECRET}}\n    b",
    )
    config = parse(text)
    assert "hunter2" not in effective(config) + repr(config)
    assert "SSTPLB_SECRET" in effective(config)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("pools:", "limits: {idle_timeout: 60s}\npools:"), "kills healthy calls"),
        (("pools:", "limits: {idle_timeout: 90s}\npools:"), "less than the 120 s"),
        (("rras:\n    b", "rras:\n    check: {method: tcp}\n    b"), "a tcp check misleads"),
        (("", ""), "nobody says which certificate"),
        (
            ("pools:\n", "pools:\n  spare: {backends: [{name: a, address: 10.1.1.1}]}\n"),
            "no listener",
        ),
        (("rras:\n    b", "rras:\n    check: {timeout: 9s}\n    b"), "longer than the interval"),
        (("rras:\n    b", "rras:\n    proxy_protocol: v1\n    b"), "does not understand a PROXY"),
        (("mode: offload", "mode: reencrypt"), ""),
    ],
)
def test_what_will_hurt_is_warned_of(change: tuple[str, str], words: str) -> None:
    found = "\n".join(str(w) for w in warnings(parse(GOOD.replace(*change))))
    assert words in found
    if not words:
        assert found == ""


def test_relaxed_rules_of_reencrypt_are_warned_of() -> None:
    text = GOOD.replace("mode: offload", "mode: reencrypt").replace(
        "rras:\n    b", "rras:\n    tls: {verify: off, same_certificate: warn}\n    b"
    )
    found = "\n".join(str(w) for w in warnings(parse(text)))
    assert "verification is off" in found
    assert "torn down after authentication" in found


def test_the_json_schema_knows_every_section() -> None:
    made = json_schema()
    assert {"listeners", "pools", "limits", "log"} <= made["properties"].keys()
    assert made["additionalProperties"] is False
    assert "kills" not in str(made["$schema"])


def test_words_that_yaml_once_took_for_booleans_are_words() -> None:
    text = GOOD.replace("10.0.0.11}", "10.0.0.11, standing: off}").replace(
        "mode: offload", "mode: offload\n    follow: off\n    tls: {min_version: 1.3}"
    )
    config = parse(text)
    assert config.pools["rras"].backends[0].standing is schema.Standing.OFF
    assert config.listeners[0].follow is schema.Follow.OFF
    assert config.listeners[0].tls.min_version is schema.TlsVersion.TLS13


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0"), (0.5, "500ms"), (660.0, "11m"), (90.0, "90s"), (86400.0, "1d")],
)
def test_durations_read_as_they_are_shown(seconds: float, text: str) -> None:
    assert schema.format_duration(seconds) == text
    assert schema.parse_duration(text) == seconds


@pytest.mark.parametrize(("size", "text"), [(512, "512B"), (16384, "16KiB"), (1 << 20, "1MiB")])
def test_sizes_read_as_they_are_shown(size: int, text: str) -> None:
    assert schema.format_size(size) == text
    assert schema.parse_size(text) == size
