"""rtcore: runtime for realtime reinforcement learning with staggered asynchronous inference.

The folders are the layers, lowest first; each imports only what stands above it in this list:

    errors clock realtime channel       what fails, what time it is, what the kernel can do, how processes talk
    scheduling spaces files host        which worker starts when (schedule), which action acts at a tick (dispatch), and
                                        what acts where there is none (on_missing); frames and actions as bytes, and
                                        which numbers may be in them (bounds); data on disk; the machine
    config memory                       every setting: flags, TOML, `RuntimeConfig`; shared memory: its structs, that of
                                        a tick among them (layout/records), and the protocol over each: frames (ring),
                                        jobs and actions (slots), the learner's published weights (weights); the plain
                                        case of ring and slots in C (_tick)
    messages results                    everything else that processes say to each other; what a run counted, its
                                        columns in actions.csv and jobs.csv (rows), and why a tick went as it did
                                        (explain)
    loop learn recording                one tick of the env process, take-overs included (tickloop), the context of its
                                        jobs, with the features for a head (job_context), what acts where chunks overlap
                                        (overlap); transitions and checkpoints; a run kept losslessly, and exported
                                        (minari, lerobot)
    processes report (rtcore_workers)   a run's processes from start to end (supervisor); who starts, watches and
                                        restarts one, a file for each role (workers, learners), and whether it is
                                        restarted or the run ends (restarts); what people see: a run that goes on
                                        (live), one that is over (page), its folder as tables (loaded); what computes:
                                        a worker reads a frame and writes its action slot (inference) with the newest
                                        published weights (weights/shared), a learner updates them (learner), by an
                                        algorithm (dqn, imitation)
    runtime watch doctor                what a program imports; a run seen from outside; is this machine fit
    virtual profile torture sb3 torchrl a run without a clock, a recorded one again (replay); where the microseconds go;
                                        faults as a campaign: made-up runs on the virtual clock (simulation), checked
                                        tick by tick (checks), the protocols of shared memory (protocols) in every order
                                        of their accesses (explorer), or in drawn ones (schedules), runs by real
                                        processes with kills (real), what each leaves (aftermath), one long run (soak);
                                        a run in the hands of Stable-Baselines3 and of torchrl
    experiments                         many runs as the cells of one table: the file that says them, each in a process
                                        of its own (local), as Ray tasks (raytasks), and what they leave (records)
    cli                                 the programs, one file each: its options (run, top, ...), what they ask for
                                        (do_run, do_top, ...), and how all of them end, with which exit code (exits)

    with rtcore.Runtime(env_id="rtcore/Blocks-v0", policy="impala", duration=10) as runtime:
        runtime.wait()
    print(runtime.summary()["actions"]["acted_fraction"])

Each part is usable alone: `FrameRing`, `ActionSlots`, `TickClock`, `Schedule`, `Dispatcher`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from rtcore.moved import install as _keep_old_paths
from rtcore.version import __version__

if TYPE_CHECKING:
    from rtcore.clock import TickClock, TickGrid
    from rtcore.config.run import RuntimeConfig
    from rtcore.memory.ring import FrameRing
    from rtcore.memory.slots import ActionSlots
    from rtcore.processes.servers import shared_imports
    from rtcore.report.loaded import load_run
    from rtcore.runtime.realtime_env import RealtimeEnv
    from rtcore.runtime.runtime import Runtime
    from rtcore.scheduling.dispatch import Dispatcher
    from rtcore.scheduling.schedule import Schedule


_HOMES = {
    "ActionSlots": "rtcore.memory.slots",
    "Dispatcher": "rtcore.scheduling.dispatch",
    "FrameRing": "rtcore.memory.ring",
    "RealtimeEnv": "rtcore.runtime.realtime_env",
    "Runtime": "rtcore.runtime.runtime",
    "RuntimeConfig": "rtcore.config.run",
    "Schedule": "rtcore.scheduling.schedule",
    "TickClock": "rtcore.clock",
    "TickGrid": "rtcore.clock",
    "load_run": "rtcore.report.loaded",
    "shared_imports": "rtcore.processes.servers",
}

__all__ = [
    "ActionSlots",
    "Dispatcher",
    "FrameRing",
    "RealtimeEnv",
    "Runtime",
    "RuntimeConfig",
    "Schedule",
    "TickClock",
    "TickGrid",
    "__version__",
    "load_run",
    "shared_imports",
]


def __getattr__(name: str) -> Any:
    """Load on first use: importing rtcore costs a process nothing it does not need."""
    if name not in _HOMES:
        raise AttributeError(f"module 'rtcore' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


_keep_old_paths()
