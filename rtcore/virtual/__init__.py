"""A run on the virtual clock: one process and no sleeping, the same actions at the same ticks each time.

Schedule, tick loop, replay memory and learning are those of a real run; workers and learners are times at which
something ends. `replay`: a recorded run's dispatch and world again, without a policy, compared bit for bit.
"""
