"""A run with one worker that computes elsewhere and one here: real processes, keys, weights, a kill of the far side."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

import rtcore
from rtcore.errors import ConfigError, LinkError
from rtcore.host.addresses import Address
from rtcore_workers.remote.keys import Keys, write_pair
from rtcore_workers.remote.on_ray import find
from rtcore_workers.remote.sockets import Line, Listener
from rtcore_workers.remote.wire import Kind, Packet, parse
from tests.support.drills import started, wait_for, wait_for_answers
from tests.support.weight_parts import PLAYING, check_each_came_from_one_version, state

pytestmark = pytest.mark.process

POLICY = PLAYING["policy"]
#: A busy machine is no silent link: what is tried here is noticed at once, or not at all.
PATIENT_MS = 60_000


def listening(stack: ExitStack, keys: Path, at: str = "127.0.0.1:0") -> tuple[subprocess.Popen[str], str]:
    """`rtcore-worker` under way, and where it listens."""
    command = [sys.executable, "-m", "rtcore.cli.worker", "--listen", at, "--keys", str(keys), "--allow", POLICY]
    process = stack.enter_context(started(*command, "--device", "cpu", "--link-timeout-s", "60"))
    assert process.stdout is not None
    said = process.stdout.readline()
    assert "listening at" in said, said
    return process, said.split("listening at ")[1].split(",")[0]


def test_a_worker_elsewhere_gets_weights_is_killed_and_is_back_while_the_other_goes_on(tmp_path: Path) -> None:
    run_keys, worker_keys = write_pair(tmp_path / "keys")
    with ExitStack() as stack:
        far, address = listening(stack, worker_keys)
        elsewhere = {"workers": 2, "workers_at": address, "remote_keys": run_keys, "link_timeout_s": 60}
        settings = PLAYING | elsewhere | {"policy_args": {"pad_ms": 10}, "out": tmp_path / "run"}
        with rtcore.Runtime(**settings) as runtime:
            devices = [worker.device for worker in runtime.stats().workers]
            assert devices == [f"{address} (cpu)", "cpu"]
            status = runtime._supervisor.shared.worker_status

            def both_use(version: int) -> bool:
                return {status[worker]["policy_version"] for worker in (0, 1)} == {version}

            for version in (2, 3):
                assert runtime.publish(state(version)) == version
            wait_for(lambda: both_use(3), "both to use version 3")
            os.kill(far.pid, signal.SIGKILL)
            wait_for(lambda: runtime.stats().workers[0].pid < 0, "its place to be down")
            wait_for_answers(runtime, 1)
            assert runtime.publish(state(4)) == 4
            listening(stack, worker_keys, address)
            wait_for(lambda: runtime.stats().workers[0].pid > 0, "its place to be back")
            wait_for_answers(runtime, 0)
            wait_for(lambda: both_use(4), "both to use version 4")
            runtime.stop()
            runtime.wait()
        summary = runtime.summary()
    assert summary["leftover_shared_memory"] == []
    assert check_each_came_from_one_version(tmp_path / "run") >= {3, 4}
    reasons = summary["restart_reasons"]
    assert reasons == {f"link to {address} lost": sum(worker["restarts"] for worker in summary["workers"])}


def test_a_run_says_why_it_does_not_begin_without_its_worker(tmp_path: Path) -> None:
    _, worker_keys = write_pair(tmp_path / "keys")
    other_run_keys, _ = write_pair(tmp_path / "others")
    with ExitStack() as stack:
        _, address = listening(stack, worker_keys)
        settings = {**PLAYING, "workers": 1, "workers_at": address, "remote_keys": other_run_keys}
        with pytest.raises(LinkError, match=rf"worker at {address} .*another key"), rtcore.Runtime(**settings):
            pass


# -- the sockets alone -------------------------------------------------------------------------------------------------


def connects(listener: Listener, keys: Keys | None, tries: int = 600) -> tuple[bool, str]:
    """Whether that side comes through, and what it knows of the reason."""
    line = Line(Address("127.0.0.1", listener.port), keys, silent_ms=PATIENT_MS)
    try:
        for _ in range(tries):
            if line.became_connected(100) or (line.why != "no answer yet" and "nobody" not in line.why):
                break
        return line.is_connected, line.why
    finally:
        line.close()


def test_a_worker_on_ray_without_ray_names_the_extra_and_is_no_lost_link(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "ray.py").write_text("raise ImportError('not here')")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]]))
    with pytest.raises(ConfigError, match=r"ray:arms needs ray, .*rtcore\[ray\]"):
        find("arms")


def test_only_who_has_a_known_key_comes_through(tmp_path: Path) -> None:
    run, worker = (Keys.read(file, "keys") for file in write_pair(tmp_path / "a"))
    other_run, other_worker = (Keys.read(file, "keys") for file in write_pair(tmp_path / "b"))
    listener = Listener("127.0.0.1", 0, worker, silent_ms=PATIENT_MS)
    try:
        assert connects(listener, run) == (True, "no answer yet")
        unknown = Keys(other_run.secret, other_run.public, run.peers)
        other_host = Keys(run.secret, run.public, other_run.peers)
        for keys in (None, unknown, other_host):
            is_connected, why = connects(listener, keys)
            assert not is_connected
            assert "not the worker with" in why
        assert listener.receive(0) is None, "nothing of it arrived"
        assert connects(listener, run)[0], "and the right one still comes through"
    finally:
        listener.close()
    without = Listener("127.0.0.1", 0, None, silent_ms=PATIENT_MS)
    try:
        assert not connects(without, other_worker)[0]
    finally:
        without.close()


def test_half_open_connections_and_garbage_keep_nobody_out() -> None:
    listener = Listener("127.0.0.1", 0, None, silent_ms=PATIENT_MS)
    packets: list[tuple[bytes, Packet]] = []
    refused: list[LinkError] = []

    def has_come(wanted: list[object]) -> bool:
        message = listener.receive(100)
        if message is not None:
            try:
                packets.append((message[0], parse(message[1])))
            except LinkError as error:
                refused.append(error)
        return bool(wanted)

    with ExitStack() as stack:
        stack.callback(listener.close)
        greeting = b"\xff" + b"\0" * 8 + b"\x7f\3\0NULL" + b"\0" * 48
        for garbage in (b"", b"GET / HTTP/1.1\r\n\r\n", os.urandom(4096), greeting):
            end = stack.enter_context(socket.create_connection(("127.0.0.1", listener.port)))
            end.sendall(garbage)
        line = Line(Address("127.0.0.1", listener.port), None, silent_ms=PATIENT_MS)
        stack.callback(line.close)
        wait_for(lambda: line.became_connected(100), "the connection")
        line.send(Packet(Kind.WEIGHTS_HELD, 1, words=(2, 3)))
        wait_for(lambda: has_come(list(packets)), "the packet")
        ((peer, packet),) = packets
        assert packet == Packet(Kind.WEIGHTS_HELD, 1, words=(2, 3))
        assert listener.send(peer, Packet(Kind.PROBE))
        assert not listener.send(b"nobody", Packet(Kind.PROBE))
        line._socket.send_multipart([b"garbage", b"more"])  # by a peer that is let in
        wait_for(lambda: has_come([one for one in refused if "a message of 11 bytes" in str(one)]), "the garbage")
    assert len(packets) == 1
