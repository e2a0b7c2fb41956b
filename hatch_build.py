"""Compiles the tick path (rtcore/_tick) beside its sources and into the wheel; without a C compiler Python does it all.

One binary serves CPython 3.11 and newer (the stable ABI).
"""

from __future__ import annotations

import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from setuptools import Distribution, Extension

_FOLDER = "rtcore/_tick"


class CompileTickPath(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        for old in Path(self.root, _FOLDER).glob("_compiled.*.so"):
            old.unlink()
        extension = Extension(
            "rtcore._tick._compiled",
            [str(Path(self.root, _FOLDER, "module.c"))],
            define_macros=[("_GNU_SOURCE", "1")],
            extra_compile_args=["-std=c11"],
            py_limited_api=True,
            optional=True,
        )
        command = Distribution({"name": "rtcore", "ext_modules": [extension]}).get_command_obj("build_ext")
        command.build_lib = self.root
        with tempfile.TemporaryDirectory() as command.build_temp:
            command.ensure_finalized()
            command.run()
        if not Path(self.root, _FOLDER, "_compiled.abi3.so").exists():
            self.app.display_warning("the tick path was not compiled: it needs a C compiler and Python's headers")
            return
        build_data["artifacts"].append(f"/{_FOLDER}/_compiled.abi3.so")
        build_data["pure_python"] = False
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"cp311-abi3-{platform}"
