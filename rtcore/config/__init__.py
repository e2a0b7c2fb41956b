"""Every setting of a run: the one `RuntimeConfig`, its flags, its TOML file.

Imports `scheduling`, `files`, `host`.
"""

from rtcore.config.run import RuntimeConfig, from_words, load_toml, make_config

__all__ = ["RuntimeConfig", "from_words", "load_toml", "make_config"]
