"""Programs, as text, that give rtcore something of their own main module."""

GUARDED = """
import sys
import gymnasium, torch, rtcore
print("main runs as", __name__)

def make_net(observation_space, action_space):
    return torch.nn.Linear(observation_space.shape[0], int(action_space.n))

if __name__ == "__main__":
    with rtcore.Runtime(env_id="CartPole-v1", fps=50, policy=make_net, workers=1, ticks=20) as runtime:
        runtime.wait()
    print("played", runtime.config.agent.policy, runtime.summary()["ticks"]["count"])
"""

UNGUARDED = """
import torch, rtcore
print("main runs as", __name__)

def make_net(observation_space, action_space):
    return torch.nn.Linear(observation_space.shape[0], int(action_space.n))

with rtcore.Runtime(env_id="CartPole-v1", fps=50, policy=make_net, workers=1, ticks=20) as runtime:
    runtime.wait()
"""
