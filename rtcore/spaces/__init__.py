"""What an observation and an action look like in memory: the bridge from Gymnasium spaces to shared bytes.

The specs are small frozen values: they pickle, compare, and go through JSON unchanged, so that another
program can attach to a run and rebuild its spaces. Nothing here knows an offset in shared memory or a process;
torch is imported only where somebody hands over a tensor.
"""

from rtcore.spaces.action import Action, ActionKind, ActionSpec
from rtcore.spaces.arrays import Array, ArraySpec, Bounds, JsonDict
from rtcore.spaces.bounds import DeclaredBounds, ObservationCheck
from rtcore.spaces.observation import ObservationSpec
from rtcore.spaces.packing import FramePacker
from rtcore.spaces.parts import Part, unpack
from rtcore.spaces.payload import Block, PolicyNeeds

__all__ = [
    "Action",
    "ActionKind",
    "ActionSpec",
    "Array",
    "ArraySpec",
    "Block",
    "Bounds",
    "FramePacker",
    "JsonDict",
    "ObservationSpec",
    "ObservationCheck",
    "Part",
    "DeclaredBounds",
    "PolicyNeeds",
    "unpack",
]
