"""The context of each job, and what becomes of an answer's payload: carried state, features, extras.

Only the tick loop moves these: it copies the new state and the features from an answer's payload into the contexts of
the jobs that are booked after it. So a worker always reads a whole context, however many workers compute at once.
Pure: no process, no shared memory. Allocates a few short strings of bytes for each job and each answer.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from rtcore._tick import compiled
from rtcore.scheduling.dispatch import Committed, Decision, Dispatcher, Known, Offer, TickKind
from rtcore.scheduling.jobs import Answer, Job
from rtcore.scheduling.on_missing import OnMissing, foreseen
from rtcore.spaces import ActionSpec, PolicyNeeds
from rtcore.spaces.parts import aligned
from rtcore.spaces.payload import CONTEXT_WORDS, WORD_AT

_WORDS = struct.Struct(f"<{len(CONTEXT_WORDS)}q")
_EPISODE, _STATE_TICK = WORD_AT["episode"], WORD_AT["state_tick"]
# Looked up once: each job asks for these.
_UNKNOWN, _FACT, _HELD = Known.UNKNOWN, Known.FACT, Known.HELD
_MASK_BYTE = [bytes((known,)) for known in Known]

_NO_PIECES: list[Committed] = []
#: How long what was applied is kept for a head, in ticks.
_PAST_TICKS = 1024


class _FeaturesOrigin(NamedTuple):
    """What features were made from: whose they are, and the state that their decision began from."""

    worker: int
    state: bytes
    state_tick: int


class JobContexts:
    """The contexts of one phase. Each phase starts without carried state, so that a rehearsal leaves nothing behind.

    Args:
        needs: What the policy takes and gives.
        action: The world's.
        seed: Of the run.
        idle_action: What is applied where nothing acts, (action_bytes,).
        on_missing: What stands in for an action that is not there.
        holds: Whether the world stands still until an episode's first action; else something stands in meanwhile.
        head: Index of the worker that is the head; -1: there is none.
    """

    def __init__(
        self,
        needs: PolicyNeeds,
        action: ActionSpec,
        *,
        seed: int,
        idle_action: bytes,
        on_missing: OnMissing,
        holds: bool,
        head: int = -1,
    ) -> None:
        self._head = head
        self._seed, self._idle, self._on_missing, self._holds = seed, idle_action, on_missing, holds
        self._action_bytes, self._num_committed = action.nbytes, needs.committed_ticks
        #: Whether jobs carry a context.
        self.gives_context = bool(needs.context(action))
        extras, state, features = needs.extras.nbytes, needs.state.nbytes, needs.features.nbytes
        self._state_in_payload = slice(extras, extras + state)
        self._features_in_payload = slice(extras + state, extras + state + features)
        committed, mask = aligned(needs.committed_ticks * action.nbytes), aligned(needs.committed_ticks)
        #: Makes a context: words, `committed`, its mask, state, features. What is shorter is filled up with 0.
        self._pack = struct.Struct(f"{_WORDS.format}{committed}s{mask}s{state}s{features}s").pack
        #: The same, for the extension; and where an answer has its actions.
        self._sizes = (action.nbytes, needs.committed_ticks, state, features, Answer._fields.index("actions"))
        in_context = _WORDS.size + committed + mask
        self._state_in_context = slice(in_context, in_context + state)
        self._has_state, self._has_features, self._extras_bytes = bool(state), bool(features), extras
        #: Room for the ages of a frame that is not made yet: whoever reads it fills that in.
        self._ages = bytes(needs.ages_block.nbytes)
        #: What stands behind that in each context: the task's version, the task, and the ages. Empty: none of them.
        self._behind, self._has_task = self._ages, bool(needs.task)
        self._nothing_kept = bytes(extras + state)
        self._first_state = needs.first_state or bytes(state)
        #: Whether later jobs carry something of an answer: its new state, its features.
        self.carries_on = self._has_state or self._has_features
        #: What the newest features were made from.
        self._features_origin = self._no_origin = _FeaturesOrigin(-1, self._first_state, -1)
        #: Whether each tick needs `note_applied`, `kept` and `origin`.
        self.follows_ticks = head >= 0 or bool(extras + state) or on_missing == "repeat"
        #: What the features of the head's last two jobs were made from, by the tick of their frame. Two, because the
        #: next job may be booked before the action of the last one is applied.
        self._head_uses: dict[int, _FeaturesOrigin] = {}
        # For a head: the actions applied since the episode's first frame, one a tick, at most `_past_ticks` of them.
        self._past, self._past_mask, self._past_from = bytearray(), bytearray(), 0
        self._past_ticks = max(_PAST_TICKS, 2 * needs.committed_ticks) if head >= 0 else 0
        self.begin_episode()

    def begin_task(self, version: int, task: bytes) -> None:
        """Of the jobs that are booked from now on. `task`: a block of `PolicyNeeds.task`."""
        if self._has_task:
            self._behind = version.to_bytes(8, "little") + task + self._ages

    def begin_episode(self) -> None:
        """Nothing of the last one is carried on."""
        # What was applied last: a tick without an action repeats it where `on_missing` is "repeat".
        self._applied = self._idle
        self._decision = Decision(TickKind.RESET)
        self._person: bytes | None = None
        self._state, self._state_tick = self._first_state, -1
        self._features, self.features_tick = b"", -1
        self._is_first = 1

    def carry_on(self, job: Job, answer: Answer, episode: int) -> None:
        """Keep the new state and the features of an answer, if no answer has seen a newer frame of the episode.

        Args:
            job: What was answered. The answer of a head is not kept.
            answer: One that abstained is not kept, either.
            episode: The present one.
        """
        if job.worker == self._head or answer.abstained or answer.episode != episode:
            return
        payload, obs_tick = answer.payload, answer.obs_tick
        if self._has_state and obs_tick > self._state_tick:
            self._state, self._state_tick = payload[self._state_in_payload], obs_tick
        if self._has_features and obs_tick > self.features_tick:
            self._features, self.features_tick = payload[self._features_in_payload], obs_tick
            self._features_origin = _FeaturesOrigin(job.worker, *self._began_from(job, answer))

    def with_contexts(
        self, jobs: Sequence[Job], decision: Decision, dispatcher: Dispatcher, person: bytes | None = None
    ) -> list[Job]:
        """The jobs booked at a tick, each with its context: a block of `PolicyNeeds.context`.

        Args:
            jobs: Of which the dispatcher knows.
            decision: What acts at this tick; it is not applied yet.
            dispatcher: Says what is known of the coming ticks.
            person: What a person who has stepped in does at this tick, b"" if that is not known; what comes then nobody
                knows. None: nobody has.
        """
        made: list[Job] = []
        self._decision, episode = decision, dispatcher.episode
        self._person = person
        for job in jobs:
            tick = job.obs_tick
            if job.worker == self._head:
                made.append(self._as_packed(job, episode, self._is_first, *self._for_head(tick)))
                continue
            pieces = _NO_PIECES
            if self._num_committed and job.due_tick > tick + 1 and person is None:
                pieces = dispatcher.committed(job, tick)
            booked = None
            if compiled is not None:  # what follows, where each piece has its answer
                is_first, state_tick, features_tick = self._is_first, self._state_tick, self.features_tick
                booked = compiled.give_context(
                    self._sizes, job, pieces, self._seed, episode, is_first, state_tick, features_tick, self._state
                )
            if booked is None:
                # Features are a head's; a trunk's context has room for them all the same: all are of one size.
                booked = self._as_packed(job, episode, self._is_first, *self._committed_to(pieces, tick + 1), b"")
            self._is_first = 0
            made.append(booked)
        if self._behind:
            made = [tuple.__new__(Job, (*job[:-1], job.context + self._behind)) for job in made]
        return made

    def _present(self) -> tuple[bytes, Known]:
        """What acts at this tick."""
        decision = self._decision
        kind, offer, chunk_index = decision.kind, decision.offer, decision.chunk_index
        if self._person is not None and kind is not TickKind.RESET:
            return self._person, Known.FACT if self._person else Known.UNKNOWN
        if offer is not None:
            begin = chunk_index * self._action_bytes
            return offer.answer.actions[begin : begin + self._action_bytes], Known.FACT
        if kind is TickKind.RESET or (kind is TickKind.LEAD_IN and self._holds):
            return self._idle, Known.HELD
        return foreseen(self._on_missing, self._idle, self._applied, Known.FACT)

    def _for_head(self, tick: int) -> tuple[bytes, bytes, bytes]:
        """`committed` and its mask, and the features that the head's job of this tick is given."""
        self._head_uses[tick] = self._features_origin
        if len(self._head_uses) > 2:
            del self._head_uses[next(iter(self._head_uses))]
        return *self._since_features(tick), self._features

    def _as_packed(self, job: Job, episode: int, is_first: int, committed: bytes, mask: bytes, features: bytes) -> Job:
        words = job.worker, self._seed, job.obs_tick, episode, is_first, job.due_tick - job.obs_tick
        ticks = self._state_tick, self.features_tick
        context = self._pack(*words, *ticks, committed, mask, self._state, features)
        return tuple.__new__(Job, (*job[:-1], context))

    def note_applied(self, tick: int, action: bytes, kind: TickKind, *, stands: bool) -> None:
        """Keep what was applied at a tick. `stands`: the world stood still."""
        self._applied = self._idle if stands else action
        if not self._past_ticks:
            return
        if kind is TickKind.RESET:
            self._past.clear()
            self._past_mask.clear()
            self._past_from = tick + 1
            return
        self._pass_skipped(tick)
        self._past += action
        self._past_mask.append(Known.HELD if stands else Known.FACT)
        if (surplus := len(self._past_mask) - 2 * self._past_ticks) > 0:
            surplus += self._past_ticks
            del self._past[: surplus * self._action_bytes], self._past_mask[:surplus]
            self._past_from += surplus

    def kept(self, offer: Offer | None) -> bytes:
        """What stays with the tick at which an answer's action is applied, a block of `PolicyNeeds.kept`; None: no
        answer's is."""
        if offer is None:
            return self._nothing_kept
        extras = offer.answer.payload[: self._extras_bytes]
        if not self._has_state:
            return extras
        if offer.job.worker == self._head:
            return extras + self._features_origin_of(offer.job).state
        return extras + self._began_from(offer.job, offer.answer)[0]

    def origin(self, offer: Offer | None) -> tuple[int, int, int]:
        """Of the frame header: `state_tick`, `features_tick`, `features_worker`."""
        if offer is None:
            return -1, -1, -1
        if offer.job.worker == self._head:
            origin = self._features_origin_of(offer.job)
            return origin.state_tick, offer.features_tick, origin.worker
        return self._began_from(offer.job, offer.answer)[1], -1, -1

    def _features_origin_of(self, job: Job) -> _FeaturesOrigin:
        """What the features that this job of the head was given were made from."""
        return self._head_uses.get(job.obs_tick, self._no_origin)

    def _began_from(self, job: Job, answer: Answer) -> tuple[bytes, int]:
        """The state that a decision began from, and its `state_tick`; b"" and -1: the policy carries none."""
        words = _WORDS.unpack_from(job.context)
        # It may have seen a newer frame than the booked one: the first of another episode, which it began.
        if not self._has_state or words[_EPISODE] != answer.episode or words[_STATE_TICK] < 0:
            return self._first_state, -1
        return job.context[self._state_in_context], words[_STATE_TICK]

    def _pass_skipped(self, tick: int) -> None:
        """Ticks before this one that were not run: the world stood still."""
        skipped = tick - self._past_from - len(self._past_mask)
        self._past += bytes(skipped * self._action_bytes)
        self._past_mask += bytes((Known.HELD,)) * skipped

    def _since_features(self, tick: int) -> tuple[bytes, bytes]:
        """`committed` of a head, and its mask: what was applied from the features' frame up to this tick."""
        size, end = self._action_bytes, self._num_committed
        self._pass_skipped(tick)
        since = self.features_tick + 1 - self._past_from
        if since < 0 or not end:  # longer ago than is kept
            return b"", b""
        past, past_mask = self._past[since * size :], self._past_mask[since:]
        action, known = self._present()
        past += action.ljust(size, b"\0")
        past_mask.append(known)
        return bytes(past[: end * size]), bytes(past_mask[:end])

    def _committed_to(self, pieces: Sequence[Committed], next_tick: int) -> tuple[bytes, bytes]:
        """`committed` and its mask, up to the last tick of which something is known; what is not known is 0 in both."""
        actions = mask = b""
        size, room = self._action_bytes, self._num_committed
        for first_tick, num_ticks, how, answer, chunk_index in pieces:
            known = how
            if answer is not None:
                begin = chunk_index * size
                value = answer.actions[begin : begin + num_ticks * size]
            elif how is _HELD and self._holds:
                value = self._idle * num_ticks
            else:
                one, known = self._stands_in(actions, mask, first_tick - next_tick)
                if known is _UNKNOWN:
                    continue
                value = one * num_ticks
            if len(mask) < first_tick - next_tick:
                mask = mask.ljust(first_tick - next_tick, b"\0")
                actions = actions.ljust(len(mask) * size, b"\0")
            actions += value
            mask += _MASK_BYTE[known] * num_ticks
        if len(mask) > room:
            return actions[: room * size], mask[:room]
        return actions, mask

    def _stands_in(self, actions: bytes, mask: bytes, index: int) -> tuple[bytes, Known]:
        """What acts at entry `index` if no action is there, by what is known of the ticks before."""
        if index > len(mask):
            return foreseen(self._on_missing, self._idle, b"", _UNKNOWN)
        last, known = (actions[-self._action_bytes :], Known(mask[-1])) if mask else self._present()
        return foreseen(self._on_missing, self._idle, last, _FACT if known is _HELD else known)
