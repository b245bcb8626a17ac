"""Defines the settings of a replica. This module imports nothing large, so that `genray serve` and
Ray's own processes can read the settings in a moment.
"""

from dataclasses import dataclass, field
from pathlib import Path

from genray.bounds import bounded, check_bounds
from genray.errors import ConfigError, require
from genray.paths import PathOrUrl
from serve.forwarded import networks
from serve.limits import Limits


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of one replica."""

    models_dir: PathOrUrl
    keys: tuple[str, ...] = ()
    """API keys; a request may use any of them. Empty: everyone who reaches the port may use the
    service.
    """
    limits: Limits = field(default_factory=Limits)
    max_batch: int = bounded(32, min=1, example=32)
    """Most rows in one call of a model. An image of a DCGAN costs 5.7 CPU-ms alone and 1.6 CPU-ms
    in a batch of 32.
    """
    watch_s: float = bounded(2.0, above=0, example=2)
    """Seconds between two scans of the directory."""
    allow_changes: bool = True
    """Allow clients to delete models and to roll them back."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses (10.0.0.1) and networks (10.1.0.0/16) of the proxies in front of the service. Only
    from these, X-Forwarded-For, -Proto, -Host and -Prefix are honoured.
    """
    request_log: PathOrUrl = ""
    """File that receives one JSON line for each request. The process id of each replica is added to
    the file's name. Empty: no log.
    """

    def validate(self) -> None:
        """Raise ConfigError for a value outside its bounds, or a key that is not safe to use."""
        self.limits.validate()
        check_bounds(self)
        networks(self.trusted_proxies)
        for key in self.keys:
            require(
                len(key) >= 16,
                "GENRAY_API_KEY: each key must have 16 characters or more (openssl rand -hex 24)",
            )
            require(
                key.isascii() and key.isprintable() and " " not in key,
                "GENRAY_API_KEY: each key must consist of printable ASCII characters without "
                "spaces (openssl rand -hex 24)",
            )


def check_folder(folder: Path) -> None:
    """Raise ConfigError unless `folder` is a directory."""
    if not folder.is_dir():
        raise ConfigError(
            f"{folder}: no such directory; give one that holds model folders (or runs), e.g. runs"
        )
