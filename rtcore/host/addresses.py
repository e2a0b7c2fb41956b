"""Where a worker on another host listens: HOST:PORT, or ray:NAME, where Ray knows it."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

#: The name of a worker that Ray has started follows.
RAY = "ray:"
_RAY_NAME = re.compile(r"[A-Za-z0-9_.-]+")


class Address(NamedTuple):
    """A host, by name or number, and a TCP port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """From HOST:PORT, or [IPv6]:PORT. ValueError, which says what was expected, for anything else."""
        host, colon, port = text.strip().rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        name = host[1:-1] if bracketed else host
        known = name.isascii() and all(each.isalnum() or each in ".-_" or (bracketed and each in ":%") for each in name)
        if not colon or not name or not known or not port.isdecimal() or not 1 <= int(port) <= 65535:
            raise ValueError(f"{text!r} is no address; expected HOST:PORT, as in gpu1:5710 or [::1]:5710")
        return cls(name, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether it is certain, without asking anybody, that nothing leaves this host."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def parse_addresses(given: object) -> tuple[str, ...]:
    """Addresses as a user says them: one text with commas, or a list. ValueError for what is none."""
    texts = given if isinstance(given, (list, tuple)) else [given]
    parts = [part for text in texts for part in str(text).split(",") if part.strip()]
    return tuple(_parsed(part.strip()) for part in parts)


def is_loopback(text: str) -> bool:
    """Whether it is certain that nothing leaves this host. `text`: of `parse_addresses`."""
    return not text.startswith(RAY) and Address.parse(text).is_loopback


def _parsed(text: str) -> str:
    if not text.startswith(RAY):
        return str(Address.parse(text))
    if not _RAY_NAME.fullmatch(text.removeprefix(RAY)):
        raise ValueError(f"{text!r} is no name of a worker of Ray's; expected one that rtcore-worker --ray printed")
    return text
