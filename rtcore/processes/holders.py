"""The supervisor's part in sharing weights on a GPU: one process per device owns the memory, its weight holder.

A holder is started when the first worker asks for its device, outlives the workers, and is told to end once they have.
The memory of a dead one is not to be relied upon (NVIDIA: undefined): its workers go down with it, come back as any
worker does, ask again, and so a new holder is started. A device whose holder does not come up is not shared: its
workers have copies of their own, and the run says why. Nothing here talks to the env process.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from rtcore.errors import describe_exit
from rtcore.memory.layout import Layout, ParamLayout
from rtcore.memory.segments import segment_path
from rtcore.memory.weights import ParamStore, attach_store, create_store
from rtcore.messages import End, HolderBoot, HolderReady, WeightsHeld, WeightsWanted
from rtcore.processes.launcher import Child, Launch

_log = logging.getLogger(__name__)

HOLDER_ENTRY = "rtcore_workers.holder:main"


@dataclass
class _Device:
    """A device, the process that holds its weights, and the workers that compute with them."""

    index: int
    device: str
    kind: str
    child: Child | None = None
    store: ParamStore | None = None
    generation: int = 0
    restarts: int = 0
    waiting: list[Child] = field(default_factory=list)
    users: list[Child] = field(default_factory=list)
    #: Why the device's weights are not shared; "": they are, or will be.
    refused: str = ""
    #: Workers that have copies of their own.
    private: set[int] = field(default_factory=set)


class HolderProcesses:
    """The weight holders of a run. Used by the supervising thread; `stats` by any.

    `kill_worker(worker)`: end a worker whose holder has died; it is restarted then.
    """

    def __init__(
        self,
        run_id: str,
        layout: Layout,
        launch: Launch,
        kill_worker: Callable[[Child], None],
    ) -> None:
        #: Shutting down: exits are expected.
        self.ending = False
        self._run_id = run_id
        self._layout = layout
        self._launch = launch
        self._kill_worker = kill_worker
        self._places: list[_Device] = []

    def request(self, worker: Child, wish: WeightsWanted, params: ParamStore) -> None:
        """A worker wants a device's weights held; answered as soon as they are. `params`: the run's store."""
        place = next((place for place in self._places if place.device == wish.device), None)
        if place is None:
            place = _Device(len(self._places), wish.device, wish.kind)
            if place.index >= params.layout.num_holders:
                place.refused = f"there are places for {params.layout.num_holders} weight holders"
            self._places.append(place)
        place.waiting.append(worker)
        if place.child is None and not place.refused:
            self._start(place, params)
        self._answer(place)

    def note_private(self, worker: Child, device: str, why: str) -> None:
        """A worker has its own copy of the weights."""
        for place in self._places:
            if place.device == device:
                place.private.add(worker.index)
                place.users = [user for user in place.users if user is not worker]
                if not place.refused:
                    _log.warning(f"worker {worker.index} does not share the weights on {device}: {why}")

    def check(self, child: Child, params: ParamStore, *, in_run: bool) -> None:
        """Something happened to a holder. WorkerDied if it died before the run has begun."""
        place = self._places[child.index]
        if place.child is not child:
            return
        if child.exitcode is None:
            if isinstance(child.ready, HolderReady):
                for note in child.ready.notes:
                    _log.warning(f"weight holder of {place.device}: {note}")
                child.ready.notes.clear()
            self._answer(place)
            return
        place.child = None
        # Only now may the buffer that it was copying from be written.
        params.release(self._claim_of(place))
        if self.ending:
            return
        if child.ready is None:
            place.refused = str(child.error or f"its holder died: {describe_exit(child.exitcode)}")
            _log.warning(f"the weights on {place.device} are not shared: {place.refused}")
            self._answer(place)
            return
        if not in_run:
            raise child.death
        self._replace(place, child, params)

    def _replace(self, place: _Device, child: Child, params: ParamStore) -> None:
        place.restarts += 1
        users, place.users = [user for user in place.users if user.exitcode is None], []
        cause = child.failure.text if child.failure is not None else describe_exit(child.exitcode)
        workers = ", ".join(str(user.index) for user in users)
        _log.warning(
            f"the weight holder of {place.device} (pid {child.pid}) is down: {cause}; "
            f"{f'restarting workers {workers} with it' if users else 'no worker used it'}"
        )
        for user in users:
            self._kill_worker(user)
        if place.waiting:
            self._start(place, params)

    def _start(self, place: _Device, params: ParamStore) -> None:
        part = f"holder{place.index}"
        if place.store is not None:
            place.store.close()
        segment_path(self._run_id, part).unlink(missing_ok=True)
        create_store(self._run_id, self._layout, ParamLayout.heads_only(self._layout.max_workers).sizes, part)
        place.store = attach_store(self._run_id, part)
        place.generation += 1
        place.child = self._launch(
            place.index,
            place.generation,
            HOLDER_ENTRY,
            partial(
                HolderBoot,
                generation=place.generation,
                part=part,
                claim=self._claim_of(place),
                device=place.device,
                kind=place.kind,
                num_buffers=place.store.layout.num_buffers,
                buffer_bytes=params.layout.buffer_bytes,
            ),
        )

    def _claim_of(self, place: _Device) -> int:
        """Its number among those who claim buffers of the run's store."""
        return self._layout.max_workers + place.index

    def _answer(self, place: _Device) -> None:
        """Answer the workers that wait, if the holder is ready or refused."""
        child = place.child
        if place.refused:
            reply = WeightsHeld(refused=place.refused)
        elif child is not None and isinstance(child.ready, HolderReady) and child.exitcode is None:
            reply = WeightsHeld(f"holder{place.index}", child.ready.memory)
            place.users = [user for user in place.users if user.exitcode is None] + place.waiting
        else:
            return
        for worker in place.waiting:
            worker.send(reply)
        place.waiting = []

    # -- what there is -------------------------------------------------------------------------------------

    @property
    def pids(self) -> dict[str, int]:
        """pid of the holder of each device that has one."""
        found = {place.device: place.child for place in self._places}
        return {device: child.pid for device, child in found.items() if child is not None and child.exitcode is None}

    def stats(self) -> list[dict[str, Any]]:
        """Per device, for summary.json: what its workers compute with."""
        found = []
        for place in self._places:
            counts = place.store.counts() if place.store is not None else {"waits": 0, "skipped": 0}
            found.append(
                {
                    "device": place.device,
                    "memory": place.kind,
                    "refused": place.refused,
                    "version": place.store.newest_version() if place.store is not None else 0,
                    "waits": counts["waits"],
                    "skipped": counts["skipped"],
                    "restarts": place.restarts,
                    "private_workers": sorted(place.private),
                }
            )
        return found

    # -- end -----------------------------------------------------------------------------------------------

    def end(self) -> None:
        """Once no worker computes any more: the memory may go."""
        self.ending = True
        for place in self._places:
            if place.child is not None:
                place.child.send(End())

    @property
    def has_ended(self) -> bool:
        return all(place.child is None or place.child.exitcode is not None for place in self._places)

    def close(self) -> None:
        """Let the memory of the stores go. More than once does no harm."""
        for place in self._places:
            if place.store is not None:
                place.store.close()
