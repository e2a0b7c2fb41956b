"""A run kept losslessly: what was seen and what was applied at every tick, beside the run.

schema       what a recording consists of: files, columns, their types
ring_reader  frames and job records out of shared memory, what the ring lapped counted
writer       into ticks.hdf5, so that a killed writer leaves a file that can be read
process      the recorder process
reader       a recording, finished or not
inspection   a file is looked into by a process of its own before this one opens it
minari       the same as a Minari data set, nothing stored twice
lerobot      the same exported as a LeRobot data set
mending      what a killed writer left, as a file like others

Imports `results`. The run again from it: `rtcore.virtual.replay`.
"""
