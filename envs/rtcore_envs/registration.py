"""Gymnasium ids of the worlds, and of any world in real time.

Gymnasium 1.x reads no entry points, so an id exists once `rtcore_envs` has been imported:
``gymnasium.make("rtcore_envs:rtcore/Blocks-v0")`` imports it by itself. Gymnasium before 1.0 called the
entry point.
"""

from gymnasium.envs.registration import register, registry

#: Id and entry point, as text: the emulator is imported when an environment is made.
ENVIRONMENTS = {
    "rtcore/Atari-v0": "rtcore_envs.atari:AtariEnv",
    "rtcore/Blocks-v0": "rtcore_envs.blocks:BlocksEnv",
    "rtcore/Catch-v0": "rtcore_envs.catch:CatchEnv",
    "rtcore/GameBoy-v0": "rtcore_envs.owngame:OwnGameEnv",
    "rtcore/PushedCartPole-v0": "rtcore_envs.cartpole:PushedCartPoleEnv",
    "rtcore/SetPointCartPole-v0": "rtcore_envs.cartpole:SetPointCartPoleEnv",
    "rtcore/SyntheticDevice-v0": "rtcore_envs.device:SyntheticDeviceEnv",
    "rtcore/Tetris-v0": "rtcore_envs.tetris:TetrisEnv",
    "rtcore/PokemonBattles-v0": "rtcore_envs.pokemon:PokemonBattlesEnv",
    "rtcore/PokemonCatching-v0": "rtcore_envs.pokemon:PokemonCatchingEnv",
}
#: Steps another world in real time: ``gymnasium.make("rtcore_envs:rtcore/RealtimeEnv-v0", world="CartPole-v1")``.
REALTIME = {"rtcore/RealtimeEnv-v0": "rtcore.runtime.realtime_env:RealtimeEnv"}


def register_envs() -> None:
    """Registers every id that is not yet registered; further calls do nothing."""
    for env_id, entry_point in (ENVIRONMENTS | REALTIME).items():
        if env_id not in registry:
            register(id=env_id, entry_point=entry_point, nondeterministic=env_id in REALTIME)
