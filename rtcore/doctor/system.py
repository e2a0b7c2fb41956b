"""The ground: operating system, Python, packages, tools."""

from __future__ import annotations

from packaging.requirements import Requirement
from packaging.version import Version

from rtcore.doctor.checks import Check, Needs, Verdict, lacks, ok, warn
from rtcore.doctor.machine import Machine
from rtcore.memory.segments import platform_lack

_OLDEST_PYTHON = "3.11"


def platform(machine: Machine, needs: Needs) -> Verdict:
    system, processor = machine.system
    lack = platform_lack(system, processor, is_compiled=machine.tick_path()[0])
    return lacks(f"{system} on {processor}", lack) if lack else ok(f"Linux on {processor}")


def python(machine: Machine, needs: Needs) -> Verdict:
    if Version(machine.python) >= Version(_OLDEST_PYTHON):
        return ok(machine.python)
    return lacks(machine.python, f"install Python {_OLDEST_PYTHON} or newer and make the virtual environment with it")


def packages(machine: Machine, needs: Needs) -> Verdict:
    """Everything that a plain `pip install rtcore` brings, at the versions it asks for."""
    missing, found = [], []
    for requirement in map(Requirement, machine.requirements()):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        version = machine.package(requirement.name)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            missing.append(f"{requirement.name} {version or 'missing'} (needs {requirement.specifier})")
        else:
            found.append(f"{requirement.name} {version}")
    if missing:
        return lacks("; ".join(missing), "pip install --upgrade rtcore (in a checkout: pip install -e .)")
    return ok(", ".join(sorted(found)))


def compiler(machine: Machine, needs: Needs) -> Verdict:
    for name in ("cc", "gcc", "clang"):
        if machine.which(name):
            return ok(machine.run(name, "--version").splitlines()[0])
    return warn(
        "none: rtcore-profile cannot measure the limit of the hardware, examples/c_reader cannot be built",
        "sudo apt install gcc libc6-dev",
    )


def tick_path(machine: Machine, needs: Needs) -> Verdict:
    """What publishes, reads, writes and posts: the extension, or the same in Python."""
    in_c, words, remedy = machine.tick_path()
    return ok(words) if in_c or not remedy else warn(f"{words}; every frame costs twice as long", remedy)


CHECKS = (
    Check("system.platform", "platform", platform),
    Check("system.python", "Python", python),
    Check("system.packages", "packages", packages),
    Check("system.compiler", "C compiler", compiler),
    Check("system.tick_path", "tick path", tick_path),
)
