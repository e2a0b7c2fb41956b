"""Where inferences may be made elsewhere: addresses, keys, and what a run without them says."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from rtcore.cli.worker import main
from rtcore.config.flags import parse_config
from rtcore.config.resolved import resolve
from rtcore.config.run import make_config
from rtcore.errors import ConfigError
from rtcore.host.addresses import Address
from rtcore_workers.remote.keys import Keys, write_pair

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "host", "port", "is_loopback"),
    [
        ("gpu1:5710", "gpu1", 5710, False),
        ("10.0.0.2:1", "10.0.0.2", 1, False),
        ("127.0.0.1:65535", "127.0.0.1", 65535, True),
        ("127.8.8.8:80", "127.8.8.8", 80, True),
        ("localhost:80", "localhost", 80, True),
        ("localhost.evil.example:80", "localhost.evil.example", 80, False),
        ("[::1]:80", "::1", 80, True),
        ("[fe80::1%eth0]:80", "fe80::1%eth0", 80, False),
        ("0.0.0.0:80", "0.0.0.0", 80, False),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, host: str, port: int, is_loopback: bool) -> None:
    address = Address.parse(text)
    assert (address, address.is_loopback, str(address)) == ((host, port), is_loopback, text)


@pytest.mark.parametrize(
    "text", ["", "gpu1", ":80", "gpu1:", "gpu1:0", "gpu1:65536", "::1:80", "a b:80", "a/b:80", "ä:1"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected HOST:PORT"):
        Address.parse(text)


def test_workers_elsewhere_are_the_first_ones_by_flag_and_in_a_file(tmp_path: Path) -> None:
    config, _ = parse_config(["--workers-at", "127.0.0.1:1,localhost:2", "--workers", "3"])
    file = tmp_path / "a.toml"
    file.write_text('workers_at = ["127.0.0.1:1", "localhost:2"]\nworkers = 3\n')
    assert config == parse_config(["--config", str(file)])[0]
    run = resolve(config, Fraction(60), 100)
    assert [run.address_of(index) for index in range(4)] == ["127.0.0.1:1", "localhost:2", None, None]
    assert config.computes_here


@pytest.mark.parametrize(
    ("given", "here"),
    [
        ({}, False),
        ({"workers": "auto"}, True),
        ({"workers": 2}, True),
        ({"learn": "dqn"}, True),
        ({"policy": "a:b"}, True),
    ],
)
def test_a_host_whose_workers_are_all_elsewhere_needs_no_network(given: dict[str, object], here: bool) -> None:
    config = make_config(**({"workers_at": "127.0.0.1:1", "workers": 1, "policy": "mlp"} | given))
    assert config.computes_here is here


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"workers_at": "gpu1:5710"}, "gpu1:5710 is another host, and there are no keys"),
        ({"workers_at": "127.0.0.1:1,10.0.0.1:2"}, "10.0.0.1:2 is another host"),
        ({"workers_at": "127.0.0.1"}, "workers-at: .*expected HOST:PORT"),
        ({"workers_at": "127.0.0.1:1,127.0.0.1:2", "workers": 1}, "names 2 workers, and workers is 1.*--workers 2"),
        ({"workers_at": "127.0.0.1:1,127.0.0.1:2", "max_workers": 1}, "names 2 workers, and max_workers is 1"),
        ({"workers_at": "127.0.0.1:1", "clock": "virtual", "latency": "constant:5"}, "workers_at is for --clock wall"),
        ({"remote_keys": "run.key"}, "give --workers-at"),
        ({"policy": "openpi:ws://a:1", "learn": "dqn"}, "is a server, which has the network"),
        ({"policy": "openpi:ws://a:1", "policy_checkpoint": "x"}, "has no network to play the weights with"),
    ],
)
def test_what_does_not_go_is_refused(given: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        make_config(**given)


# -- keys --------------------------------------------------------------------------------------------------------------


def test_each_side_knows_the_other_and_nobody_else_can_read_it(tmp_path: Path) -> None:
    pytest.importorskip("zmq", reason="makes keys: pip install 'rtcore[remote]'")
    files = write_pair(tmp_path / "keys")
    assert [file.name for file in files] == ["run.key", "worker.key"]
    assert [file.stat().st_mode & 0o777 for file in files] == [0o600, 0o600]
    run, worker = (Keys.read(file, "keys") for file in files)
    assert run.peers == (worker.public,)
    assert worker.peers == (run.public,)
    assert len({run.secret, run.public, worker.secret, worker.public}) == 4
    before = files[0].read_bytes()
    with pytest.raises(ConfigError, match="there already"):
        write_pair(tmp_path / "keys")
    assert files[0].read_bytes() == before


def test_a_file_that_holds_no_keys_or_that_others_read_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("zmq", reason="makes keys: pip install 'rtcore[remote]'")
    file, _ = write_pair(tmp_path / "keys")
    text = file.read_text()
    file.chmod(0o640)
    with pytest.raises(ConfigError, match=f"remote_keys: others may read {file}.*chmod 600"):
        Keys.read(file, "remote_keys")
    file.chmod(0o600)
    for damaged in (
        text[:-20],
        text.replace("peers", "pears"),
        text.replace("secret = '", "secret = 'x"),
        "\0",
        "peers = []",
    ):
        file.write_text(damaged)
        with pytest.raises(ConfigError, match="is no key file"):
            Keys.read(file, "remote_keys")
    with pytest.raises(ConfigError, match="No such file"):
        Keys.read(tmp_path / "none", "remote_keys")


def test_a_worker_of_a_ray_cluster_has_a_name_and_is_reached_with_keys(tmp_path: Path) -> None:
    pytest.importorskip("zmq", reason="makes keys: pip install 'rtcore[remote]'")
    run_keys, _ = write_pair(tmp_path / "keys")
    config = make_config(workers_at="ray:far-0,ray:far-1,localhost:1", workers=3, remote_keys=run_keys)
    assert config.remote.workers_at == ("ray:far-0", "ray:far-1", "localhost:1")
    with pytest.raises(ConfigError, match="ray:far-0 is another host, and there are no keys"):
        make_config(workers_at="ray:far-0")
    for wrong in ("ray:", "ray:a b", "ray:a/b", "ray:far:1"):
        with pytest.raises(ConfigError, match="no name of a worker of Ray's"):
            make_config(workers_at=wrong, remote_keys=run_keys)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "expected --listen HOST:PORT, or --ray N"),
        (["--ray", "2"], "--ray: the cluster's nodes can be reached from other hosts; expected --keys"),
        (["--ray", "2", "--listen", "127.0.0.1:0"], "leave --listen out"),
        (["--ray", "0"], "expected a whole number from 1"),
    ],
)
def test_a_worker_on_ray_needs_its_words(words: list[str], said: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert said in " ".join(capfd.readouterr().err.split())
