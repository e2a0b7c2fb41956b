"""The weights of a policy, shared by every worker of a run: in shared memory, and in a GPU's."""
