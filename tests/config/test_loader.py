"""Every mistake is found at once, with its line and the way out."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sstplb.config import document, schema
from sstplb.config.loader import effective, load, parse
from sstplb.config.schema import CheckMethod, Transport, Verify
from sstplb.errors import ConfigError
from tests.config.samples import GOOD, changed, in_pool, mistakes

ROOT = Path(__file__).parents[2]
CONF = sorted((ROOT / "conf").glob("*.yaml"))


@pytest.mark.parametrize("path", CONF, ids=lambda p: p.name)
def test_every_example_loads(path: Path) -> None:
    config = load(path)
    assert config.listeners
    assert effective(config)


def test_the_minimal_example_is_twelve_lines() -> None:
    lines = (ROOT / "conf" / "minimal.yaml").read_text().splitlines()
    assert len([line for line in lines if not line.startswith("#")]) <= 12


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
    found = "\n".join(mistakes(text))
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


def test_mistakes_of_every_kind_come_at_once() -> None:
    """The document, the values, and what needs several of them: none waits for another."""
    text = """\
listeners:
  - name: vpn
    mode: offload
    pool: rras
  - name: two
    address: 127.0.0.1:444
    mode: passthrough
    pool: rsa
    pool: rsa
    web_pool: rras
  - name: two
    address: 127.0.0.1:444
    mode: passthrough
    pool: other
pools:
  rras:
    tls: {verify: pin}
    try_timeout: 10
    backends:
      - {name: x}
      - {name: b, address: 10.0.0.1}
      - {name: b, address: 10.0.0.2}
  other: {backends: [{name: a, address: 10.0.0.3, weight: 0}]}
"""
    assert mistakes(text) == [
        "x.yaml:2: listeners[0].address: is missing",
        "x.yaml:8: listeners[1].pool: there is no pool rsa; did you mean rras?",
        "x.yaml:9: listeners[1].pool: pool was given before, in line 8",
        "x.yaml:10: listeners[1].web_pool: passthrough cannot see what a visitor wants: leave "
        "this out, or choose offload or reencrypt",
        "x.yaml:11: listeners[2].name: two is the name of another listener too",
        "x.yaml:12: listeners[2].address: 127.0.0.1:444 is taken by listener two already",
        "x.yaml:17: pools.rras.tls.verify: pin needs pins: the SHA-256 of each accepted "
        "certificate",
        "x.yaml:18: pools.rras.try_timeout: expected a duration such as 10s, 500ms or 2m, got 10",
        "x.yaml:20: pools.rras.backends[0].address: is missing",
        "x.yaml:22: pools.rras.backends[2].name: b is the name of another backend too",
        "x.yaml:23: pools.other.backends[0].weight: expected 1 or more, got 0",
    ]


@pytest.mark.parametrize(
    "text",
    [
        changed("certificates:", "certificats:"),  # no "needs certificates"
        changed("{chain: a.pem", "{chain: 5"),
        changed("  rras:\n", "  rras:\n    nonsense: 1\n"),  # no "there is no pool rras"
        changed("backends:", "backends: 5 #").replace("      - {", "#"),
        in_pool("tls: {verify: pin, pins: [zz]}"),  # no "pin needs pins"
        in_pool("tls: {verify: pni, pins: [" + "ab" * 32 + "]}"),
        in_pool("check: {method: login, usrname: u, password: {env: X}}"),
        in_pool("check: {method: login, username: u, password: geheim}"),
        in_pool("total_timeout: 1s\n    try_timeout: 1"),
    ],
)
def test_one_mistake_has_no_echo(text: str) -> None:
    assert len(mistakes(text)) == 1


def test_a_key_beside_the_one_it_looks_like_spoils_only_itself() -> None:
    (said,) = mistakes(changed("    mode: offload", "    mode: offload\n    moode: offload"))
    assert "did you mean mode?" in said


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    for name in ("gone.yaml", "."):
        with pytest.raises(ConfigError, match="cannot be read"):
            load(tmp_path / name)
    (tmp_path / "odd.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="UTF-8"):
        load(tmp_path / "odd.yaml")
    (tmp_path / "big.yaml").write_bytes(b"#" * (document.DOCUMENT_BYTES_MAX + 1))
    with pytest.raises(ConfigError, match="at most 1 MiB"):
        load(tmp_path / "big.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x.yaml: is empty: begin with listeners and pools (sstplb init"),
        ("# nothing yet", "x.yaml: is empty"),
        ("- a", "x.yaml:1: expected a section with keys"),
        ("word", "x.yaml:1: expected a section with keys"),
        ("a: [", "x.yaml:1: not YAML"),
    ],
)
def test_what_is_no_configuration_at_all(text: str, message: str) -> None:
    assert message in mistakes(text)[0]


def test_what_follows_from_elsewhere_is_filled_in(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(GOOD)
    config = load(tmp_path / "x.yaml")
    pool = config.pools["rras"]
    assert pool.transport is Transport.PLAIN
    assert pool.backends[0].address == ("10.0.0.11", 80)
    assert pool.check.method is CheckMethod.HTTP
    assert config.listeners[0].certificates[0].chain == tmp_path / "a.pem"
    assert config.listeners[0].certificates[0].key == tmp_path / "a.key"
    bare = parse(changed("127.0.0.1:443", "127.0.0.1"))
    assert bare.listeners[0].address == ("127.0.0.1", 443)
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
    text = in_pool("check: {method: login, username: u, password: {env: SSTPLB_SECRET}}")
    config = parse(text)
    assert "hunter2" not in effective(config) + repr(config)
    assert "SSTPLB_SECRET" in effective(config)


def test_every_path_is_relative_to_the_file_and_an_absolute_one_stays(tmp_path: Path) -> None:
    text = in_pool("check: {method: login, username: u, password: {file: p}}")
    text = in_pool("tls: {ca_file: /etc/ca.pem}", text) + "log: {file: calls.log}"
    config = parse(text, base=tmp_path)
    password = config.pools["rras"].check.password
    assert password is not None
    assert password.file == tmp_path / "p"
    assert config.pools["rras"].tls.ca_file == Path("/etc/ca.pem")
    assert config.log.file == tmp_path / "calls.log"


def test_words_need_no_quotes() -> None:
    text = changed("10.0.0.11}", "10.0.0.11, standing: off}")
    text = changed(
        "mode: offload", "mode: offload\n    follow: off\n    tls: {min_version: 1.3}", text
    )
    config = parse(in_pool("check: {http_version: 1.0, expect_status: [401, 200-299]}", text))
    assert config.pools["rras"].backends[0].standing is schema.Standing.OFF
    assert config.pools["rras"].check.expect_status == ("401", "200-299")
    assert config.pools["rras"].check.http_version == "1.0"
    assert config.listeners[0].follow is schema.Follow.OFF
    assert config.listeners[0].tls.min_version is schema.TlsVersion.TLS13


@given(
    st.sampled_from([line for line in GOOD.splitlines() if ":" in line]),
    st.sampled_from(["", "5", "[]", "{}", "true", "word", "[[]]", "{a: {b: 1}}", "~", "-1", "'"]),
)
def test_any_value_in_any_place_is_good_or_said_to_be_bad(line: str, value: str) -> None:
    key = line.partition(":")[0]
    said = ""
    try:
        parse(GOOD.replace(line, f"{key}: {value}"), file="x.yaml")
    except ConfigError as error:
        said = str(error)
    assert all(problem.startswith("x.yaml:") for problem in said.splitlines())
    assert "pydantic" not in said
    assert "Input should" not in said
