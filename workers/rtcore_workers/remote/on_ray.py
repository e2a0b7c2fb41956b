"""Far sides as Ray actors: `rtcore-worker --ray N` starts them, Ray starts one anew whose process or node has died, and
a run finds each by its name. What travels in a run goes over the same sockets as to any other `rtcore-worker`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from rtcore.clock import MonotonicClock, ns_of
from rtcore.errors import ConfigError, LinkLost
from rtcore.host.addresses import RAY, Address
from rtcore.host.raycluster import connect, import_ray, reach
from rtcore_workers.remote.keys import Keys
from rtcore_workers.remote.serving import Builder, serve
from rtcore_workers.remote.sockets import Listener

_NAMESPACE = "rtcore"
#: How long actors may take to be there, and the search for one [s].
_START_S, _FIND_S = 120.0, 30.0
_POLL_S = 1.0
#: How a run's process is told where the cluster is; else it is the one of its own machine.
_ADDRESS = "RAY_ADDRESS"


class FarSide:
    """An actor: serves runs as `rtcore-worker --listen` does, at a port that is free.

    If that ends, so does its process, and Ray starts it anew.
    """

    def __init__(self, keys: Keys, device: str, allowed: Sequence[str], silent_ms: int, folder: str) -> None:
        """`folder`: where own modules are looked for after everything else, if it is there."""
        if Path(folder).is_dir():
            sys.path.append(folder)
        import ray  # noqa: PLC0415 - it runs in one of its workers

        listener = Listener("0.0.0.0", 0, keys, silent_ms)
        self._address = str(Address(ray.util.get_node_ip_address(), listener.port))
        builder = Builder(device, frozenset(allowed))
        threading.Thread(target=self._serve, args=(listener, builder), daemon=True).start()

    def address(self) -> str:
        """Where it listens now."""
        return self._address

    @staticmethod
    def _serve(listener: Listener, builder: Builder) -> None:
        try:
            serve(listener, builder, lambda line: print(line, flush=True))
        finally:
            os._exit(1)


def serve_on_ray(
    count: int,
    name: str,
    cluster: str,
    *,
    keys: Keys,
    device: str,
    allowed: Sequence[str],
    silent_ms: int,
    say: Callable[[str], None],
) -> None:
    """Start that many actors, NAME-0, NAME-1, ..., and keep them until the program is told to end.

    Raises:
        ConfigError: Ray is not installed, the cluster cannot be reached, has no room, or has actors of these names.
    """
    reach(cluster)
    ray, clock = import_ray("--ray"), MonotonicClock()
    connect(ray, cluster, namespace=_NAMESPACE)
    try:
        actor = ray.remote(FarSide)
        gpus = 1 if device.startswith("cuda") else 0
        names, actors = [f"{name}-{index}" for index in range(count)], []
        for each in names:
            how = {"name": each, "max_restarts": -1, "num_cpus": 1, "num_gpus": gpus}
            try:
                actors.append(actor.options(**how).remote(keys, device, list(allowed), silent_ms, os.getcwd()))  # noqa: PTH109
            except ValueError as error:  # the name is taken
                raise ConfigError(f"--ray: {error}; give another --name") from error
        try:
            addresses = ray.get([each.address.remote() for each in actors], timeout=_START_S)
        except ray.exceptions.GetTimeoutError as error:
            raise ConfigError(
                f"--ray {count}: not all are there after {_START_S:.0f} s; expected a CPU"
                f"{' and a GPU' if gpus else ''} of the cluster for each ({ray.available_resources()} are free)"
            ) from error
        except ray.exceptions.RayError as error:
            raise ConfigError(f"--ray: a worker cannot be started: {error}") from error
        for each, address in zip(names, addresses, strict=True):
            say(f"rtcore-worker: {RAY}{each} listens at {address}, encrypted")
        say(f"rtcore-worker: rtcore-run --workers-at {','.join(RAY + each for each in names)} --remote-keys run.key")
        while True:
            clock.sleep_until_ns(clock.now_ns() + ns_of(_POLL_S))
    finally:
        ray.shutdown()  # its actors end with the program


def find(name: str) -> Address:
    """Where the actor of that name listens now. In a program of its own, which Ray fills with threads and memory.

    Raises:
        LinkLost: It is not there, or nobody knows of it in time.
        ConfigError: Ray is not installed.
    """
    words = [sys.executable, "-m", __name__, name]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_FIND_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise LinkLost(f"{RAY}{name}: Ray has not said within {_FIND_S:.0f} s where it is") from error
    *_, said = done.stdout.splitlines() or [""]
    if done.returncode == 0:
        return Address.parse(said)
    raise (ConfigError if done.returncode == _NOT_THERE[ConfigError] else LinkLost)(said or done.stderr[-400:])


#: Exit codes of this program.
_NOT_THERE: dict[type[Exception], int] = {ConfigError: 2, LinkLost: 3}


def _main(name: str) -> int:
    try:
        ray = import_ray(f"{RAY}{name}")
    except ConfigError as error:
        print(error)
        return _NOT_THERE[ConfigError]
    try:
        connect(ray, os.environ.get(_ADDRESS, "auto"), namespace=_NAMESPACE)
        print(ray.get(ray.get_actor(name).address.remote(), timeout=_FIND_S / 2))
    except ConfigError as error:
        print(error)
    except Exception as error:  # Ray raises what it likes
        print(f"{RAY}{name}: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
    else:
        return 0
    return _NOT_THERE[LinkLost]


if __name__ == "__main__":
    code = _main(sys.argv[1])
    sys.stdout.flush()
    os._exit(code)  # Ray's own end takes a second
