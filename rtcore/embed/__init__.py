"""A run as part of another program: the program answers in the workers' place, as a Gymnasium or an rtgym env.

`Player` is the part below the envs: it asks for episodes, sees frames, books actions, through shared memory only.
"""
