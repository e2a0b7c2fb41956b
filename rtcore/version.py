"""The version of rtcore. Any module may say it: a checkout that is not installed has no metadata of a package."""

__version__ = "0.1.0"
