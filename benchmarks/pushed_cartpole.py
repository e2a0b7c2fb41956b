"""What a late action can know, through the real loop: pushed CartPole, scripted controllers, the virtual clock.

    python -m benchmarks.pushed_cartpole [--episodes 40] [--second-stage]

One fixed linear controller balances a pole that is pushed at random (`rtcore/PushedCartPole-v0`, 500 steps at most).
What differs is what it knows when its action is applied. Beside what the loop gave stands a calculation that knows
neither processes nor schedules: `calculated`. A delay of d is counted as in the literature: d steps lie between the
frame and the action that was chosen on it, and d = 0 is the newest frame. In rtcore that is a delay of d + 1 ticks.

- sequential: one worker, which begins anew when its action is applied; the last action goes on meanwhile
- staggered: as many workers as there are ticks of delay, an action of that age at each tick
- chunks: the state is rolled forward by the actions that govern until the chunk is due (`advance`), and the
  chunk planned from there; replanned every d steps, so that those actions are facts
- head: a policy of two speeds: staggered trunk workers with that delay, and a head that looks at the newest frame

Then `rtcore/SetPointCartPole-v0`, where a place to be at is to be read from a picture, at a delay of 5: the quick part
does not see the picture, the slow one is late.

`--second-stage`: instead of all that, the head against the other way to act on the newest frame: a second stage at the
end of each trunk worker's own job (docs/adr/0022).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from rtcore.config.run import RuntimeConfig
from rtcore.loop.world import GymnasiumWorld
from rtcore.scheduling.jobs import Answer, Job
from rtcore.virtual.latency import JobLatency
from rtcore.virtual.simulate import Change, Simulation
from rtcore_envs.cartpole import PICTURE_SHAPE

States = npt.NDArray[np.float64]
Actions = npt.NDArray[np.int64]

ENV_ID = "rtcore/PushedCartPole-v0"
MOST_STEPS = 500
DELAYS = (3, 5, 8)
PUSH_STD = 5.0
PERIOD_MS = 20
_GRAVITY, _MASS, _POLE_MASS, _HALF_LENGTH, _FORCE, _STEP_S = 9.8, 1.1, 0.1, 0.5, 10.0, 0.02


# -- the controller ----------------------------------------------------------------------------------------------


def moved(states: States, actions: npt.NDArray[Any], pushes: float | States = 0.0) -> States:
    """CartPole's next states, (..., 4): position, speed, angle, angular speed. A plan knows nothing of `pushes` [N]."""
    speed, angle, turn = (states[..., index] for index in (1, 2, 3))
    force = np.where(actions == 1, _FORCE, -_FORCE) + pushes
    cos, sin = np.cos(angle), np.sin(angle)
    moment = _POLE_MASS * _HALF_LENGTH
    part = (force + moment * turn * turn * sin) / _MASS
    turning = (_GRAVITY * sin - cos * part) / (_HALF_LENGTH * (4 / 3 - _POLE_MASS * cos * cos / _MASS))
    change = np.stack([speed, part - moment * turning * cos / _MASS, turn, turning], axis=-1)
    return states + _STEP_S * change


def controlled(states: States) -> Actions:
    """The controller: right (1) where the pole, and a little the cart, are about to fall to the right."""
    actions: Actions = (states @ np.array([0.08, 0.2, 1.0, 0.35]) > 0).astype(np.int64)
    return actions


def scripted_single(observation: npt.NDArray[np.float32]) -> Actions:
    """The controller as a policy: it takes the frame for the present state."""
    return controlled(observation.astype(np.float64))


class ScriptedChunks:
    """The controller as a policy of chunks that begin when they are due: it plans from the state it expects then."""

    def __init__(self, observation_space: Any, action_space: Any, horizon: int) -> None:
        self._horizon = horizon

    def advance(
        self, observation: npt.NDArray[np.float32], committed: Actions, committed_mask: npt.NDArray[np.uint8]
    ) -> States:
        """The state when the chunk is due."""
        state: States = observation[0].astype(np.float64)
        for action, known in zip(committed[0], committed_mask[0], strict=True):
            if known in (1, 2):  # a fact or a plan; while the world stands still (3) nothing moves
                state = moved(state, action)
        return state.reshape(1, 4)

    def __call__(self, expected: States) -> Actions:
        state = expected[0]
        chunk = np.empty((1, self._horizon), np.int64)
        for index in range(self._horizon):
            chunk[0, index] = controlled(state)
            state = moved(state, chunk[0, index])
        return chunk


class ScriptedTwoSpeed(nn.Module):
    """The controller as a head, which needs nothing of its trunk; the trunk's own action is late."""

    def __init__(self, observation_space: Any, action_space: Any) -> None:
        super().__init__()

    def think(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros(1, 1), _balanced(observation)

    def act(self, observation: Tensor, features: Tensor, age_ticks: Tensor, past_actions: Tensor) -> Tensor:
        return _balanced(observation)


class ScriptedSetPoint(nn.Module):
    """One look at all of it: the place in the picture, and the state. `blind`: it does not see the picture."""

    def __init__(self, observation_space: Any, action_space: Any, blind: bool = False) -> None:
        super().__init__()
        self.blind = blind

    def forward(self, observation: dict[str, Tensor]) -> Tensor:
        place = torch.zeros(1) if self.blind else _place_in(observation["picture"])
        return _steered(observation["state"], place)


class ScriptedTwoSpeedSetPoint(nn.Module):
    """The trunk reads the place from the picture, the head goes there on the newest state."""

    def __init__(self, observation_space: Any, action_space: Any) -> None:
        super().__init__()

    def think(self, observation: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        place = _place_in(observation["picture"])
        return place.unsqueeze(1), _steered(observation["state"], place)

    def act(self, observation: dict[str, Tensor], features: Tensor, age_ticks: Tensor, past_actions: Tensor) -> Tensor:
        return _steered(observation["state"], features[:, 0])


def _balanced(states: Tensor) -> Tensor:
    """`controlled`, (1,)."""
    return torch.from_numpy(controlled(states.double().numpy()))


def _steered(states: Tensor, place: Tensor) -> Tensor:
    """A controller that also goes to a place on the track, (1,)."""
    far = torch.clamp(states[:, 0] - place, -1.0, 1.0)
    return ((0.18 * far + 0.2 * states[:, 1] + states[:, 2] + 0.35 * states[:, 3]) > 0).long()


def _place_in(picture: Tensor) -> Tensor:
    """Where the bar is, (1,) [m]: the mean of its columns."""
    bar = picture[:, 0].float()
    columns = torch.arange(PICTURE_SHAPE[1])
    return ((bar * columns).sum(dim=1) / bar.sum(dim=1) / (PICTURE_SHAPE[1] - 1) * 2 - 1) * 2.4


# -- through the loop --------------------------------------------------------------------------------------------


def settings_of(kind: str, delay: int) -> dict[str, Any]:
    """Settings of a run of that kind. An inference takes as long as its delay says."""
    policy = "ScriptedTwoSpeed" if kind == "head" else "scripted_single"
    common = {"policy": f"benchmarks.pushed_cartpole:{policy}", "latency": _constant(delay + 1)}
    if kind == "sequential":
        return common | {"stagger": "sequential", "workers": 1}
    if kind != "chunks":
        return common | {"workers": delay + 1}
    # Done a tick before it is due, when the next one is booked: what lies between the two is a fact by then.
    horizon = 3 * delay + 2
    return {
        "policy": "benchmarks.pushed_cartpole:ScriptedChunks",
        "policy_args": {"horizon": horizon},
        "latency": _constant(delay),
        "guard_ms": PERIOD_MS,
        "workers": 2,
        "chunk": horizon,
        "replan_every": delay,
    }


def _constant(ticks: int) -> str:
    return f"constant:{ticks * PERIOD_MS - 1}"


def played(kind: str, delay: int, num_episodes: int, *, seed: int = 0) -> float:
    """Mean steps of that many episodes through schedule, dispatcher and tick loop."""
    ticks = num_episodes * (MOST_STEPS + 32)
    return _mean_return(num_episodes, env_id=ENV_ID, ticks=ticks, seed=seed, **settings_of(kind, delay))


def set_point_score(kind: str, num_episodes: int, *, delay: int = 5, seed: int = 0) -> float:
    """Mean steps of 1,000 near the place. `kind`: zero delay, trunk alone, head alone, both."""
    policy = "ScriptedTwoSpeedSetPoint" if kind == "both" else "ScriptedSetPoint"
    ticks = delay + 1 if kind in ("trunk alone", "both") else 1
    return _mean_return(
        num_episodes,
        env_id="rtcore/SetPointCartPole-v0",
        policy=f"benchmarks.pushed_cartpole:{policy}",
        policy_args={"blind": True} if kind == "head alone" else {},
        latency=_constant(ticks),
        workers=ticks,
        ticks=num_episodes * 1100,
        seed=seed,
    )


def _mean_return(
    num_episodes: int,
    *,
    second_stage: TwoSpeed | None = None,
    frames_ago: int = 0,
    head_latency: JobLatency | None = None,
    changes: Sequence[Change] = (),
    **settings: Any,
) -> float:
    config = RuntimeConfig(env_args={"push_std": PUSH_STD}, clock="virtual", on_missing="repeat", **settings)
    simulation = Simulation(config, head_latency=head_latency, changes=changes)
    if second_stage is not None:
        _add_second_stage(simulation, second_stage, frames_ago)
    episodes = simulation.record.episodes
    simulation.run(lambda _: episodes.count >= num_episodes)
    simulation.close()
    return float(np.mean([episode.total_reward for episode in episodes.newest()]))


# -- the head against a second stage -----------------------------------------------------------------------------

TRUNK_TICKS = (4, 8, 16)
TwoSpeed = ScriptedTwoSpeed | ScriptedTwoSpeedSetPoint
#: What disturbs it, of `two_speed_score`: nothing; one process is away for 2 of every 20 s; a slow `act`; the trunk's
#: time is not always the same.
DISTURBANCES = ("none", "one away", "slow act", "uneven trunk")
_SLOW_ACT_MS, _AWAY_TICKS, _AWAY_EVERY_TICKS = 30, 100, 1_000


def two_speed_score(
    has_head: bool,
    trunk_ticks: int,
    workers: int,
    num_episodes: int,
    *,
    has_set_point: bool = False,
    disturbance: str = "none",
    seed: int = 0,
) -> float:
    """Mean return of the two-speed controller, where a trunk takes `trunk_ticks` with the second stage, if it has one.

    Args:
        has_head: A head acts on the newest frame; else each worker does at the end of its job.
        trunk_ticks: As many workers give a base action at every tick.
        workers: Of the trunk.
        num_episodes: Of 500 steps at most, with a set-point 1,000.
        has_set_point: The world in which the trunk is needed, too.
        disturbance: One of `DISTURBANCES`. "one away" is the head, without one worker 0.
        seed: Of the run.
    """
    second_stage: TwoSpeed = (ScriptedTwoSpeedSetPoint if has_set_point else ScriptedTwoSpeed)(None, None)
    single = "ScriptedSetPoint" if has_set_point else "scripted_single"
    policy = type(second_stage).__name__ if has_head else single
    ticks = num_episodes * (1100 if has_set_point else MOST_STEPS + 4 * trunk_ticks)
    away: list[Change] = []
    if disturbance == "one away":
        for gone in range(200, ticks, _AWAY_EVERY_TICKS):
            worker = workers if has_head else 0
            away += [Change(gone, worker, up=False), Change(gone + _AWAY_TICKS, worker, up=True)]
    latency, frames_ago = _constant(trunk_ticks), 0
    if disturbance == "uneven trunk":
        latency = f"normal:{0.8 * trunk_ticks * PERIOD_MS:.0f},{0.08 * trunk_ticks * PERIOD_MS:.0f}"
    elif disturbance == "slow act" and not has_head:
        latency, frames_ago = _constant(trunk_ticks + 1), 1  # a head's time is the worker's, 1.5 ticks of it
    return _mean_return(
        num_episodes,
        second_stage=None if has_head else second_stage,
        frames_ago=frames_ago,
        head_latency=(lambda _: _SLOW_ACT_MS * 1_000_000) if has_head and disturbance == "slow act" else None,
        changes=away,
        env_id="rtcore/SetPointCartPole-v0" if has_set_point else ENV_ID,
        policy=f"benchmarks.pushed_cartpole:{policy}",
        latency=latency,
        workers=workers,
        ticks=ticks,
        seed=seed,
    )


def _add_second_stage(simulation: Simulation, two_speed: TwoSpeed, frames_ago: int = 0) -> None:
    """When a job ends, its worker decides anew, on the frame that is the newest then. The runtime has no such job.

    Jobs are handed over at the first tick after their end, before its frame is made: the ring's newest is that frame.
    `frames_ago`: how many are made while the second stage computes.
    """
    ring, world, collect = simulation.ring, simulation.world, simulation.workers.collect
    if ring is None or not isinstance(world, GymnasiumWorld):
        raise TypeError("a second stage needs a world with frames")
    spec = world.observation

    def decided_anew(answer: Answer) -> Answer:
        newest_seq = ring.sequence.newest() - frames_ago
        _, newest = ring.read_header(newest_seq)
        if newest is None or newest.episode != answer.episode:
            return answer  # its episode is over: the dispatcher ends it
        frames = spec.unpack(ring.gather(np.array([answer.frame_seq, newest_seq])))
        if isinstance(frames, dict):
            seen, new = ({name: torch.from_numpy(part[i : i + 1]) for name, part in frames.items()} for i in (0, 1))
        else:
            seen, new = (torch.from_numpy(frames[i : i + 1]) for i in (0, 1))
        features, _ = two_speed.think(seen)
        age_ticks = torch.tensor([newest.tick - answer.obs_tick])
        action = two_speed.act(new, features, age_ticks, torch.zeros(1, 0))
        return answer._replace(obs_tick=newest.tick, frame_seq=newest_seq, actions=action.numpy().tobytes())

    def collect_and_decide(tick: int) -> list[tuple[Job, Answer]]:
        return [(job, decided_anew(answer)) for job, answer in collect(tick)]

    simulation.workers.collect = collect_and_decide  # type: ignore[method-assign]


# -- calculated --------------------------------------------------------------------------------------------------


def calculated(kind: str, delay: int, num_episodes: int, *, seed: int = 1) -> float:
    """Mean steps of as many episodes, stepped side by side: no schedule, no dispatcher, the same physics and rule."""
    rng = np.random.default_rng(seed)
    states = rng.uniform(-0.05, 0.05, (num_episodes, 4))
    last = rng.integers(0, 2, num_episodes)
    age = 0 if kind == "head" else delay
    seen, steps, alive = [states], np.zeros(num_episodes, np.int64), np.ones(num_episodes, np.bool_)
    plan = np.zeros((0, num_episodes), np.int64)
    for step in range(MOST_STEPS):
        if kind == "chunks":
            if step % delay == 0:  # due now, decided on the state of `delay` steps ago and what acted since
                guess = seen[max(0, step - delay)]
                for action in plan[:delay] if step else []:
                    guess = moved(guess, action)
                plan = np.stack(list(_planned(guess, delay)))
            action = plan[step % delay]
        elif kind != "sequential" or step % delay == 0:
            action = controlled(seen[max(0, step - age)])
        else:
            action = last
        last = action
        states = moved(states, action, rng.normal(0.0, PUSH_STD, num_episodes))
        seen.append(states)
        steps += alive
        alive &= (np.abs(states[:, 0]) <= 2.4) & (np.abs(states[:, 2]) <= math.radians(12))
    return float(steps.mean())


def _planned(states: States, num_steps: int) -> Any:
    for _ in range(num_steps):
        actions = controlled(states)
        yield actions
        states = moved(states, actions)


# -- the table ---------------------------------------------------------------------------------------------------


class Cell(NamedTuple):
    played: float
    calculated: float

    @property
    def agrees(self) -> bool:
        """Within 15% or 15 steps."""
        return abs(self.played - self.calculated) <= max(15.0, 0.15 * self.calculated)


KINDS = ("sequential", "staggered", "chunks", "head")


def table(num_episodes: int, tell: Callable[[str], None] = lambda _: None) -> dict[tuple[str, int], Cell]:
    cells = {}
    for delay in DELAYS:
        for kind in KINDS:
            tell(f"{kind}, delay {delay}")
            cells[kind, delay] = Cell(played(kind, delay, num_episodes), calculated(kind, delay, 2_000))
    return cells


def show_second_stage(console: Console, num_episodes: int) -> None:
    """The head and the second stage, for several trunks and numbers of workers; then with what goes wrong."""
    shown = Table("trunk, ticks", "workers", title="head | second stage")
    for name in ("mean steps of 500", "of 1,000 near a set-point"):
        shown.add_column(name)
    for trunk_ticks in TRUNK_TICKS:
        for workers in (1, trunk_ticks // 2, trunk_ticks):
            cells = []
            for has_set_point in (False, True):
                count = max(4, num_episodes // 4) if has_set_point else num_episodes
                scores = [
                    two_speed_score(has_head, trunk_ticks, workers, count, has_set_point=has_set_point)
                    for has_head in (True, False)
                ]
                cells.append(" | ".join(f"{score:.0f}" for score in scores))
            shown.add_row(str(trunk_ticks), str(workers), *cells)
    console.print(shown)
    shown = Table(
        "what is wrong", "1 worker", "4", "8", title="trunk of 8 ticks, mean steps of 500: head | second stage"
    )
    for disturbance in DISTURBANCES:
        cells = []
        for workers in (1, 4, 8):
            scores = [
                two_speed_score(has_head, 8, workers, num_episodes, disturbance=disturbance)
                for has_head in (True, False)
            ]
            cells.append(" | ".join(f"{score:.0f}" for score in scores))
        shown.add_row(disturbance, *cells)
    console.print(shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--episodes", type=int, default=40, help="of each cell (default 40)")
    parser.add_argument("--second-stage", action="store_true", help="compare the head with a second stage instead")
    options = parser.parse_args()
    console = Console()
    if options.second_stage:
        show_second_stage(console, options.episodes)
        return
    cells = table(options.episodes, lambda what: console.print(f"[dim]{what}"))
    shown = Table("delay d", *KINDS, title="mean steps of 500: through the loop (calculated)")
    for delay in DELAYS:
        row = [cells[kind, delay] for kind in KINDS]
        shown.add_row(
            str(delay), *(f"{cell.played:.0f} ({cell.calculated:.0f}){'' if cell.agrees else ' !'}" for cell in row)
        )
    console.print(shown)
    kinds = ("zero delay", "trunk alone", "head alone", "both")
    shown = Table(*kinds, title="mean steps of 1,000 near the set-point, d = 5")
    shown.add_row(*(f"{set_point_score(kind, 10):.0f}" for kind in kinds))
    console.print(shown)


if __name__ == "__main__":
    main()
