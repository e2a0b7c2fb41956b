"""A trainer whose repository has folders called envs/ and workers/, as rtcore's has.

    python examples/own_folders/train.py

rtcore's own packages are called rtcore_envs and rtcore_workers: `import envs` is always the trainer's.
"""

from __future__ import annotations

from envs.line import Line
from workers.net import make_net

import rtcore


def main() -> None:
    with rtcore.Runtime(env_id=Line, policy=make_net, workers=2, duration=2) as runtime:
        while not runtime.wait(0.1):
            pass
    summary, env_id = runtime.summary(), runtime.config.world.env_id
    print(f"{summary['policy']} on {env_id}: {summary['ticks']['kinds']['acted']} ticks with an action")


if __name__ == "__main__":
    main()
