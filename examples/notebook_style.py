"""Cells of a notebook, one after another: no function, no `if __name__ == "__main__"`.

    python examples/notebook_style.py

rtcore starts its processes from a server of its own, which never imports the program: nothing here runs twice. What the
processes are to import (a world, a policy) has to be in a module, as own_world.py and own_policy.py are.
"""

# %% A run in the background: it starts while this program goes on.
import rtcore

runtime = rtcore.Runtime(env_id="own_world:make_world", policy="own_policy:make_policy", workers=2, duration=2)
runtime.start(wait=False)
print("starting")

# %% Now it is needed.
runtime.wait_ready()
print("tick 0 is about to begin")
runtime.wait()
print(f"acted on {runtime.summary()['actions']['acted_fraction']:.1%} of the ticks")

# %% A world stepped by hand, in real time.
env = rtcore.RealtimeEnv("own_world:make_world", delay_ticks=2)
obs, info = env.reset(seed=0)
for _ in range(20):
    obs, reward, terminated, truncated, info = env.step(2 if obs[0] > obs[1] else 0)
print(f"after 20 steps at tick {info['rtcore']['tick']}: thing {obs[0]:.2f}, agent {obs[1]:.2f}")
env.close()
runtime.close()
