"""`rtcore-worker`: a worker for a run on another host. What it does is in `rtcore_workers.remote`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rtcore.cli.exits import end_program, find_own_modules
from rtcore.config.help_text import Parser, add_program_options
from rtcore.errors import ConfigError
from rtcore.host.addresses import Address

_DESCRIPTION = """\
A worker for a run on another host: rtcore-run --workers-at HOST:PORT has its inferences made here.

It takes the policy's name and settings, frames, and weights from the run, and gives back actions. What comes over the
link is data: it may name the policies that come with rtcore; your own, or a saved model, only where --allow names it.
"""
_EPILOG = """\
examples:
  rtcore-worker keygen keys                          run.key for the host with the world, worker.key for this one
  rtcore-worker --listen 0.0.0.0:5710 --keys worker.key
  rtcore-worker --listen 0.0.0.0:5710 --keys worker.key --device cuda:1 --allow my_package.nets:make_policy
  rtcore-worker --listen 127.0.0.1:5710              without keys, for runs on the same host
  rtcore-worker --ray 3 --keys worker.key --device cuda       on three GPUs of a Ray cluster: it prints how to find them

On the host with the world: rtcore-run --workers-at GPUHOST:5710 --remote-keys run.key
One process serves one worker place of one run at a time: start one for each GPU, each with a port of its own.

exit codes: 1 failed; 2 a wrong argument; 128+n stopped by signal n, which is how it ends
"""
_KEYGEN = """\
Makes the keys of a link: FOLDER/run.key goes to the host with the world (rtcore-run --remote-keys), FOLDER/worker.key
to the other one (rtcore-worker --keys). Each proves who its host is and encrypts all that travels. Several workers may
have copies of the same worker.key; a worker with a second line in `peers` serves the runs of either.
"""


def main(arguments: list[str] | None = None) -> None:
    """Program entry; ends by a signal, or with 2 for wrong words."""
    words = sys.argv[1:] if arguments is None else arguments
    find_own_modules()
    end_program("rtcore-worker", lambda: _keygen(words[1:]) if words[:1] == ["keygen"] else _serve(words))


def _keygen(words: list[str]) -> int:
    from rtcore_workers.remote.keys import write_pair  # noqa: PLC0415 - after the words were understood

    run_file, worker_file = write_pair(_keygen_parser().parse_args(words).folder)
    print(f"{run_file}: for the host with the world, rtcore-run --remote-keys {run_file.name}")
    print(f"{worker_file}: for the other host, rtcore-worker --keys {worker_file.name}")
    return 0


def _keygen_parser() -> Parser:
    parser = Parser(prog="rtcore-worker keygen", description=_KEYGEN)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="made if it is not there")
    return parser


def _serve(words: list[str]) -> int:
    options = _parser().parse_args(words)
    if options.ray is not None:
        return _serve_on_ray(options)
    if options.listen is None:
        raise ConfigError("expected --listen HOST:PORT, or --ray N for a Ray cluster")
    host, port = _listening(options.listen)
    if options.keys is None and not Address(host, 1).is_loopback:
        raise ConfigError(
            f"listen: {options.listen} can be reached from other hosts, and there are no keys; expected --keys FILE "
            "(rtcore-worker keygen makes them), or an address of this host alone, as 127.0.0.1:5710"
        )
    from rtcore.host.devices import check_device, device_names  # noqa: PLC0415 - after the words were understood
    from rtcore_workers.remote.keys import Keys  # noqa: PLC0415
    from rtcore_workers.remote.serving import Builder, serve  # noqa: PLC0415
    from rtcore_workers.remote.sockets import Listener, silent_ms_of  # noqa: PLC0415

    device_names(options.device)
    check_device(options.device)
    keys = Keys.read(options.keys, "keys") if options.keys is not None else None
    listener = Listener(host, port, keys, silent_ms_of(options.link_timeout_s))
    try:
        how = "encrypted" if keys is not None else "without keys, for this host alone"
        print(f"rtcore-worker: listening at {host}:{listener.port}, {how}", flush=True)
        serve(listener, Builder(options.device, frozenset(options.allow)), lambda line: print(line, flush=True))
    finally:
        listener.close()
    return 0


def _serve_on_ray(options: argparse.Namespace) -> int:
    from rtcore.host.devices import device_names  # noqa: PLC0415 - after the words were understood
    from rtcore_workers.remote.keys import Keys  # noqa: PLC0415
    from rtcore_workers.remote.on_ray import serve_on_ray  # noqa: PLC0415
    from rtcore_workers.remote.sockets import silent_ms_of  # noqa: PLC0415

    if options.listen is not None:
        raise ConfigError("--ray: its workers listen at ports that are free; leave --listen out")
    if options.keys is None:
        raise ConfigError("--ray: the cluster's nodes can be reached from other hosts; expected --keys FILE")
    device_names(options.device)
    serve_on_ray(
        options.ray,
        options.name,
        options.ray_address,
        keys=Keys.read(options.keys, "keys"),
        device=options.device,
        allowed=options.allow,
        silent_ms=silent_ms_of(options.link_timeout_s),
        say=lambda line: print(line, flush=True),
    )
    return 0


def _listening(text: str) -> tuple[str, int]:
    """Host and port; port 0 is any that is free."""
    host, colon, port = text.rpartition(":")
    try:
        if colon and port == "0":
            return Address.parse(f"{host}:1").host, 0
        return Address.parse(text)
    except ValueError as error:
        raise ConfigError(f"listen: {error}") from error


def _parser() -> Parser:
    parser = Parser(
        prog="rtcore-worker",
        usage="%(prog)s --listen HOST:PORT [option ...]\n       %(prog)s --ray N --keys FILE [option ...]\n"
        "       %(prog)s keygen FOLDER",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    add_program_options(parser)
    parser.add_argument(
        "--listen",
        metavar="HOST:PORT",
        help="where runs find this worker: 0.0.0.0:5710 for all of the host's addresses; port 0: any that is free",
    )
    parser.add_argument("--ray", type=_count, metavar="N", help="start N workers as actors of a Ray cluster instead")
    parser.add_argument(
        "--name", default="worker", help="of these: runs find them as ray:NAME-0, ray:NAME-1, ... [worker]"
    )
    parser.add_argument(
        "--ray-address", default="auto", metavar="ADDRESS", help="of the cluster; auto: the one of this machine [auto]"
    )
    parser.add_argument("--keys", type=Path, metavar="FILE", help="worker.key of rtcore-worker keygen")
    parser.add_argument("--device", default="auto", metavar="DEVICE", help="auto, cpu, cuda or cuda:0 [auto]")
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="NAME",
        help="a policy of your own that runs may name: module:function as the run says it, or sb3:FILE.zip. Once for "
        "each",
    )
    parser.add_argument(
        "--link-timeout-s",
        type=_seconds,
        default=1.0,
        metavar="S",
        help="a run that shows no sign of life for so long has gone, and another one may come [1]",
    )
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 4096:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 1 to 4096")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r}: expected seconds, above 0")
    return value


if __name__ == "__main__":
    main()
