"""What each subcommand of `rtcore-profile` is for, and its options: all that a help text needs, and no measuring.

The common options (--json, --plot, --baseline, --fail-if) are added by the program: no subcommand names one so.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

RTCORE = ("rtcore-hybrid", "rtcore-block", "rtcore-spin")
PEERS = ("pipe", "queue", "manager", "zmq", "iceoryx2", "faster-fifo")
LIMITS = ("c-spin", "c-futex")
TRANSPORTS = (*RTCORE, *PEERS, *LIMITS)
FRAMES = ("84x84", "144x160", "210x160x3", "1080x1920x3")
GAP_US = 4000
#: A frame of megabytes comes at 60 Hz, not at 200: the slower transports could not keep up at all.
LARGE_GAP_US = 16_000


class ProfileCommand(NamedTuple):
    """`options`: name; its default, or its type if it has none (bool: a switch), or the choices; metavar; help."""

    help: str  #: for the list of subcommands
    description: str  #: what is measured, and how
    examples: str
    options: tuple[tuple[str, Any, str, str], ...] = ()
    takes_run_flags: bool = False  #: unknown options are kept in `options.run_flags`: flags of rtcore-run


def add_options(parser: argparse.ArgumentParser, command: str) -> None:
    for name, kind, metavar, text in COMMANDS[command].options:
        if kind is bool:
            parser.add_argument(name, action="store_true", help=text)
        elif isinstance(kind, type):
            parser.add_argument(name, type=kind, metavar=metavar, help=text)
        elif isinstance(kind, tuple):
            parser.add_argument(name, choices=kind, default=kind[0], help=f"{text} [{kind[0]}]")
        else:
            shown = f" [{kind:g}]" if isinstance(kind, float) else f" [{kind}]" if kind != "" else ""
            parser.add_argument(name, type=type(kind), default=kind, metavar=metavar, help=text + shown)


_IPC = ProfileCommand(
    help="frame to worker and back: latency and cost, beside other transports and the physical limit",
    description="""\
Measures, for frames of several sizes and for 1 to 32 readers:

  p50 .. max    publish start -> a private copy in the reader process
  book          what it costs the env process, before the world's step, to post a job to every reader and wake it
                (rtcore only)
  publish       what it costs the env process to publish the frame, waking the readers that still sleep included.
                Not in it: book, and waking ahead of the deadline, while the env process waits for it anyway
  visible       the part of it until every reader can see the frame (rtcore only; in the JSON as visible_p50_us)
  slot          an answer on its way back: write start -> read by the env process (rtcore-hybrid and pipe)
  p50 / limit   p50 as a multiple of c-spin: two C programs over the same ring, compiled on the spot (of c-futex,
                where there are not enough CPUs for spinning)
  p50 / best peer
                p50 as a multiple of the best transport that is not rtcore's
  missed        frames that a reader never saw, because the next one was there before it had looked

The publisher has the first CPU, the readers the others, for all transports alike (--no-pin: as the kernel likes),
and all take short turns on them, as env process and workers do.
All transports take turns in one run, 25 frames each. Between two frames the publisher sleeps, as between ticks,
and waits for nobody: what cannot keep up falls behind, as it would in a run. With several readers, every reader
gets every frame. A transport whose reader spins is left out by default where there are not enough CPUs for it.

--pattern pingpong is how iceoryx2 and Aeron measure: two processes bounce a frame back and forth, both looking
without a pause, and half of a round trip is reported. rtcore's frame ring is one each way, without jobs. Not bounced:
queue, manager and the C programs.""",
    examples="""\
examples:
  rtcore-profile ipc                                       about two minutes
  rtcore-profile ipc --frames 144x160 --readers 1 --rounds 2000
  rtcore-profile ipc --frames 84x84x4 --readers 1,8 --transports rtcore-hybrid,pipe,c-spin
  rtcore-profile ipc --pattern pingpong --frames 84x84
  rtcore-profile ipc --full --json full.json --plot pictures
  rtcore-profile ipc --baseline old.json --fail-if 'ipc.p99[transport=rtcore-hybrid]>+10%'""",
    options=(
        ("--pattern", ("ticks", "pingpong"), "", "frames once a tick, or bounced without a pause"),
        ("--frames", str, "HxW[xC],...", f"frame shapes, uint8 [{','.join(FRAMES)}]"),
        ("--readers", str, "N,...", "numbers of readers [1, and 2,8,32 for 144x160]"),
        ("--transports", str, "NAME,...", f"of {', '.join(TRANSPORTS)} [all that suit]"),
        ("--rounds", int, "N", "frames per transport [500 for 144x160 and one reader, 75 above a megabyte, else 150]"),
        ("--full", bool, "", "every size with every number of readers, 1000 frames each"),
        ("--gap-us", int, "US", f"sleep between two frames [{GAP_US}, above a megabyte {LARGE_GAP_US}]"),
        ("--no-pin", bool, "", "leave it to the kernel where publisher and readers run (else: on CPUs of their own)"),
        ("--step-us", 300, "US", "the world's step, busy"),
    ),
)
_TICK = ProfileCommand(
    help="lateness of ticks, idle and under load, normal and SCHED_FIFO, beside cyclictest",
    description="""\
Runs the env process's clock (rtcore.clock.TickClock) at a rate and measures how long after its deadline each tick
starts: on the machine as it is and with busy processes beside it, with normal scheduling and with SCHED_FIFO where
the kernel grants it. cyclictest (Debian: rt-tests), where installed, takes turns with it at the same rate and
policy, some seconds each, so that both see the same minute.

cyclictest measures how late a sleeping C thread wakes. The tick clock sleeps to a little before the deadline and
spins the rest: that hides usual lateness, and not a moment in which the machine gives no CPU at all. A tick whose
whole period has gone by is not run late but skipped, as in a run, and has no lateness: see the column "skipped".""",
    examples="""\
examples:
  rtcore-profile tick                                   about a minute and a half
  rtcore-profile tick --rate 1000 --seconds 30 --load 0 1 kHz, idle only
  rtcore-profile tick --load 8 --plot pictures          beside eight busy processes
  rtcore-profile tick --json new.json --baseline old.json --fail-if 'tick.p99[policy=fifo,load=0]>+20%'""",
    options=(
        ("--rate", "4194304/70224", "HZ", "ticks per second, as of a Game Boy"),
        ("--seconds", 10.0, "S", "of ticks for each case"),
        ("--load", int, "N", "busy processes, beside idle; 0: idle only [one a CPU]"),
        ("--policy", ("both", "other", "fifo"), "", "scheduling"),
        ("--no-cyclictest", bool, "", "the tick clock alone"),
    ),
)
_PATH = ProfileCommand(
    help="where each action of a real run spent its time, from the frame to the tick that applies it",
    description="""\
Starts a real run with tracing on and splits the way of every applied action into stages that follow one another:

  publish         the env process copies the frame into shared memory
  wake            the worker notices it (with expected-time or free-running: or becomes idle). 0 where it was
                  spinning and saw the frame before the env process had looked at the clock
  read            the worker copies the frame into its own memory
  host-to-device  the observation goes to the GPU (0 on a CPU)
  inference       the policy, padding included
  device-to-host  the action comes back from the GPU (0 on a CPU)
  write           the answer goes into the worker's slot
  wait-for-due    the answer is there; its tick is not yet
  dispatch        the tick collects the answers and decides

An action counts once, where it is first applied. Takes every flag of rtcore-run (see rtcore-run --help); without
--ticks and --duration the run lasts 10 s. With --out DIR the run's folder is kept, else nothing is.""",
    examples="""\
examples:
  rtcore-profile path                                        the built-in game and network, 10 s
  rtcore-profile path --policy-args k=1,pad_ms=100           as a larger network would play it
  rtcore-profile path --stagger expected-time --plot plots   each action as soon as it is ready; plots/path.png
  rtcore-profile path --env-id CartPole-v1 --policy mlp --fps 100 --json path.json""",
    takes_run_flags=True,
)
_GPU = ProfileCommand(
    help="GPU: host-device copies, CUDA graph against eager, overlap of k worker processes",
    description="""\
On one GPU, with the policy and the executor that a worker uses:
  copies     host to device and back, pinned and pageable memory (torch.utils.benchmark)
  inference  captured into a CUDA graph against launched eagerly: the whole, its parts by CUDA events, and the rest
             (launching, waiting, waking up)
  overlap    k worker processes that infer one after the other without a pause. Throughput, latency of one inference,
             and the share of perfect overlap: 1 is k times the throughput of one worker, 1/k is taking turns

Processes on one GPU take turns unless NVIDIA MPS runs. Which it was is said, and is in the rows: start or end the
daemon and measure again to compare.

Without a GPU the command says what it looked for and exits with 0; its JSON has "gpu": null. --device cpu runs the
same measuring code on CPUs: it shows what CPUs do, never what a GPU would.

The GPU part of this command has not been run on a GPU yet (docs/gpu.md).""",
    examples="""\
examples:
  rtcore-profile gpu                                         the default policy (impala, k=1) on the first GPU
  rtcore-profile gpu --policy-args k=29 --workers 1,2,4,8    a large network
  rtcore-profile gpu --device cuda:1 --policy my_package.nets:make_policy --policy-args width=256
  rtcore-profile gpu --device cpu --workers 1,2              no GPU: the same code on CPUs""",
    options=(
        ("--device", "cuda", "DEVICE", "cuda, cuda:1, auto or cpu"),
        ("--policy", "impala", "NAME", "as for rtcore-run"),
        ("--policy-args", "", "K=V,...", "arguments of the policy"),
        ("--frame", "84x84x1", "HxW[xC]", "the uint8 observation it sees"),
        ("--sizes", "23040,100800,1048576,6220800,67108864", "BYTES,...", "copies of so many bytes"),
        ("--workers", "1,2,4,8", "K,...", "workers that overlap; 1 is always measured"),
        ("--seconds", 2.0, "S", "measured time of each number of workers"),
        ("--samples", 200, "N", "inferences of each kind"),
    ),
)
_SCALE = ProfileCommand(
    help=(
        "acted fraction, interval CV, lateness, CPU and memory for 1 to 96 synthetic workers, by frame size and tick "
        "rate"
    ),
    description="""\
Three sweeps of short real runs: the number of workers, the tick rate, the frame size. Workers are synthetic (they
sleep, then answer at random) and so is the world (every byte of a frame is new at each step): the numbers are the
runtime's own. The inference time is chosen so that all N workers are needed for one action every tick, started at the
stagger's own even spacing (max-time): N ticks less half a tick, or less 2 ms where that is more.

CPU is in percent of one CPU: of the env process, of all workers together, and of the supervising thread. Memory is
the proportional set size: `last worker` is what one worker more costs; `total` is env process, workers and fork
server, PyTorch included, without the program that started them. The env process locks its memory where it may, which
makes all of PyTorch resident.

With no worker to spare, what else the machine does shows at once: a worker that is held up by more than its slack
misses its start (`skipped starts`), and its tick goes without an action; where the rehearsal before the run found that
most are held up, the plan is an action every second tick (`planned stride` 2). `machine busy` is of all CPUs, this run
included. Measure on an idle machine.""",
    examples="""\
examples:
  rtcore-profile scale                                       all three sweeps, about four minutes
  rtcore-profile scale --workers 1,8,64 --rates none --frames none
  rtcore-profile scale --plot plots --json scale.json        with pictures, and for comparing later
  rtcore-profile scale --baseline scale.json --fail-if 'scale.acted<-2%'
  rtcore-profile scale --seconds 30 --workers 96             a longer look at many workers""",
    options=(
        ("--workers", "1,2,4,8,16,32,64,96", "N,...", "sweep of workers at 60 Hz"),
        ("--rates", "60,200,500,1000", "HZ,...", "sweep of tick rates, or none"),
        ("--frames", ",".join(FRAMES), "HxW[xC],...", "sweep of uint8 frames at 60 Hz, or none"),
        ("--fixed-workers", "8", "N", "workers in the other two sweeps"),
        ("--seconds", 5.0, "S", "measured time of each run"),
    ),
)

_QUALIFY = ProfileCommand(
    help="qualify this machine: the worst of a long run at 60, 250 and 1000 Hz, under a stated load, as one page",
    description="""\
Real runs, one rate after the other, of the world and the workers of `scale` (8, frames of 144x160): how late ticks
began, how long a frame took to a worker's own copy, an answer to its tick. Every tick counts from the first on, and the
maximum is what matters: ask for as many minutes as it has to hold. 10^6 ticks are 17 minutes at 1000 Hz, 67 at 250 Hz.

In turns with it, for a quarter of the time: cyclictest (Debian: rt-tests) at the same rate, with SCHED_FIFO where the
env process gets it; without it a timer thread of rtcore's own that sleeps to the same deadlines. The page says which.

--load: a process on each CPU that computes, one that copies memory, one that writes and syncs files, all with normal
priority; what exactly is printed, and on the page. Without it the machine is measured as it is.

The page holds rtcore-doctor's findings, too. docs/machines.md has a line for each machine and rate: printed last.""",
    examples="""\
examples:
  rtcore-profile qualify --minutes 3                           a first look
  rtcore-profile qualify --minutes 120 --load --page qualification.html --json qualification.json
  rtcore-profile qualify --rates 1000 --minutes 23 --load      a million ticks of one rate""",
    options=(
        ("--minutes", 3.0, "M", "in all, split over the rates"),
        ("--rates", "60,250,1000", "HZ,...", "ticks per second"),
        ("--load", bool, "", "under the load above"),
        ("--page", Path, "FILE.html", "one page with everything, which needs no other file"),
        ("--no-doctor", bool, "", "without rtcore-doctor's findings"),
    ),
)

#: In the order of the help text.
COMMANDS = {"ipc": _IPC, "tick": _TICK, "path": _PATH, "gpu": _GPU, "scale": _SCALE, "qualify": _QUALIFY}
