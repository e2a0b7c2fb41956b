"""Workers elsewhere over a network that delays, loses and is cut: real processes, real TCP, two network namespaces.

    python -m benchmarks.remote_network --workers 12                  # 20 ms +- 10 ms each way, 0.5% lost
    python -m benchmarks.remote_network --workers 12 --cut 2          # the same, and nothing comes through for 2 s
    python -m benchmarks.remote_network --workers 12 --kill           # one rtcore-worker is killed and started again
    python -m benchmarks.remote_network --workers 12 --mbit 100       # and a line of 100 Mbit/s

Needs root, `ip` and /dev/net/tun. Each namespace has one end of a tunnel whose other end is here: a process of its own
takes every IP packet and delivers it later, or not, each with a delay of its own, as `tc netem delay D J loss P` does
(which not every kernel has). So two packets may overtake each other, and TCP has to repeat what is lost.
"""

from __future__ import annotations

import argparse
import fcntl
import heapq
import json
import multiprocessing
import os
import random
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rtcore.cli.exits import end_program

_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_MTU = 1500
_NEAR, _FAR = "10.77.0.1", "10.77.0.2"
_FIRST_PORT = 5710


class Network:
    """What the line does. Shared with the process that does it: `is_cut` may change at any time."""

    def __init__(self, delay_ms: float, jitter_ms: float, loss: float, mbit: float) -> None:
        self.delay_s, self.jitter_s, self.loss, self.bits_per_s = delay_ms / 1e3, jitter_ms / 1e3, loss, mbit * 1e6
        self.is_cut = multiprocessing.Value("b", 0)

    def relay(self, ends: tuple[int, int]) -> None:
        """Deliver packets from either end to the other, until the process is killed."""
        rng, waiting, free_s, number = random.Random(0), [], dict.fromkeys(ends, 0.0), 0
        for end in ends:
            os.set_blocking(end, False)
        while True:
            left_s = max(0.0, waiting[0][0] - time.monotonic()) if waiting else 1.0
            ready, _, _ = select.select(ends, [], [], left_s)
            for end in ready:
                other = ends[1 - ends.index(end)]
                while packet := _read(end):
                    if self.is_cut.value or rng.random() < self.loss:
                        continue
                    now_s = time.monotonic()
                    if self.bits_per_s:
                        free_s[end] = now_s = max(now_s, free_s[end]) + 8 * len(packet) / self.bits_per_s
                    number += 1
                    due_s = now_s + self.delay_s + rng.uniform(-self.jitter_s, self.jitter_s)
                    heapq.heappush(waiting, (due_s, number, other, packet))
            while waiting and waiting[0][0] <= time.monotonic():
                _, _, other, packet = heapq.heappop(waiting)
                try:
                    os.write(other, packet)
                except OSError:  # that end is full, or not up: as a line loses it
                    continue


def _read(end: int) -> bytes:
    try:
        return os.read(end, 1 << 16)
    except BlockingIOError:
        return b""


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@contextmanager
def namespaces(network: Network) -> Iterator[tuple[list[str], list[str]]]:
    """The beginnings of commands that run on either side of the network."""
    names = [f"rtcore-{side}-{os.getpid()}" for side in ("near", "far")]
    ends: list[int] = []
    with ExitStack() as stack:
        for name, address, peer in ((names[0], _NEAR, _FAR), (names[1], _FAR, _NEAR)):
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "del", name)
            end, device = os.open("/dev/net/tun", os.O_RDWR), f"rt{len(ends)}-{os.getpid()}"
            stack.callback(os.close, end)
            fcntl.ioctl(end, _TUNSETIFF, struct.pack("16sH", device.encode(), _IFF_TUN | _IFF_NO_PI))
            ends.append(end)
            _ip("link", "set", device, "netns", name)
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "addr", "add", address, "peer", peer, "dev", device)
            _ip("-n", name, "link", "set", device, "mtu", str(_MTU), "up")
        relay = multiprocessing.Process(target=network.relay, args=((ends[0], ends[1]),), daemon=True)
        relay.start()
        stack.callback(relay.kill)
        near, far = (["ip", "netns", "exec", name] for name in names)
        yield near, far


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=12)
    parser.add_argument("--delay-ms", type=float, default=20.0, help="one way")
    parser.add_argument("--jitter-ms", type=float, default=10.0)
    parser.add_argument("--loss", type=float, default=0.005)
    parser.add_argument("--mbit", type=float, default=0.0, help="0: no limit")
    parser.add_argument("--cut", type=float, metavar="S", default=0.0)
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--latency-ms", type=float, default=100.0, help="of the policy")
    parser.add_argument("--duration", type=float, default=30.0)
    parser.add_argument("options", nargs="*", help="more options of rtcore-run, after --")
    options = parser.parse_args()
    network = Network(options.delay_ms, options.jitter_ms, options.loss, options.mbit)
    with tempfile.TemporaryDirectory() as scratch, namespaces(network) as (near, far), ExitStack() as stack:
        out = Path(scratch) / "run"
        python = [sys.executable, "-m"]
        keys = Path(scratch) / "keys"
        subprocess.run([*python, "rtcore.cli.worker", "keygen", str(keys)], check=True, stdout=subprocess.DEVNULL)

        def listen(port: int) -> subprocess.Popen[bytes]:
            words = ["--listen", f"{_FAR}:{port}", "--keys", str(keys / "worker.key"), "--device", "cpu"]
            started = subprocess.Popen([*far, *python, "rtcore.cli.worker", *words], stdout=subprocess.DEVNULL)
            stack.callback(started.kill)
            return started

        ports = range(_FIRST_PORT, _FIRST_PORT + options.workers)
        workers = [listen(port) for port in ports]
        command = [*near, *python, "rtcore.cli.run", "--workers", str(options.workers)]
        command += ["--workers-at", ",".join(f"{_FAR}:{port}" for port in ports)]
        command += ["--remote-keys", str(keys / "run.key"), "--policy", "synthetic"]
        command += ["--policy-args", f"latency_ms={options.latency_ms}", "--duration", str(options.duration)]
        command += ["--no-live", "--out", str(out), *options.options]
        run = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        stack.callback(run.terminate)
        assert run.stdout is not None
        returned_s, back_s = 0.0, list[float]()
        for line in run.stdout:
            after = ""
            if returned_s and " is linked to " in line:
                back_s.append(time.monotonic() - returned_s)
                after = f", {back_s[-1]:.2f} s after the line's return"
            if "link" in line or "down" in line:
                print(f"  {line.strip()}{after}", flush=True)
            if "acted" in line and not returned_s and (options.cut or options.kill):
                time.sleep(options.duration / 3)
                if options.cut:
                    network.is_cut.value = 1
                    time.sleep(options.cut)
                    network.is_cut.value = 0
                else:
                    workers[0].send_signal(signal.SIGKILL)
                    workers[0] = listen(ports[0])
                returned_s = time.monotonic()
        if back_s:
            print(f"places back after {min(back_s):.2f} to {max(back_s):.2f} s")
        print_results(json.loads((out / "summary.json").read_text()), options)
    return 0


def print_results(summary: dict[str, Any], options: argparse.Namespace) -> None:
    """What must hold, in numbers."""
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs; {vars(options)}")
    print("plan", {key: summary["plan"][key] for key in ("workers", "delay_ticks", "stride_ticks", "acted_fraction")})
    print("tau ms", summary["plan"]["tau_ms"])
    ticks, actions = summary["ticks"], summary["actions"]
    print("ticks", {key: ticks[key] for key in ("count", "skipped", "kinds")}, "lateness_us", ticks["lateness_us"])
    print("acted", actions["acted_fraction"], "delay_ticks", actions["delay_ticks"])
    print("outcomes", {key: value for key, value in actions["outcomes"].items() if value})
    print("restarts", summary["restart_reasons"])


if __name__ == "__main__":
    # The namespaces go whatever ends it: a signal is an exception here.
    end_program("remote_network", main)
