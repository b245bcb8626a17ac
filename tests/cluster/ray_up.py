"""Runs the shipped cluster-local.yaml on hosts, with the changes that the file asks users to
make.
"""

import shutil
import subprocess

from tests.cluster.hosts import ROOT, Host, Hosts

KEY = "/root/.ssh/id_ed25519"


def adapted(hosts: Hosts) -> str:
    """Return the shipped file for hosts[0] as the head and hosts[1:4] as workers."""
    text = (ROOT / "cluster-local.yaml").read_text(encoding="utf-8")
    for shipped, ours in (
        ("10.0.0.", f"{hosts.subnet}."),
        ("ssh_user: ubuntu", "ssh_user: root"),
        ("/home/ubuntu", "/root"),
    ):
        assert shipped in text
        text = text.replace(shipped, ours)
    return text


class Laptop:
    """The machine that runs `ray up`: a host with the key, the token and the checkout."""

    def __init__(self, host: Host, hosts: Hosts):
        self.host, self.file = host, "/root/cluster.yaml"
        root = host.files / "root"
        shutil.copy(hosts.key, root / ".ssh/id_ed25519")
        (root / ".ssh/id_ed25519").chmod(0o600)
        (root / "cluster.yaml").write_text(adapted(hosts))
        self.ray("get-auth-token", "--generate")

    def ray(
        self, *words: str, timeout: float = 240, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run `ray WORDS` in the checkout."""
        line = f"cd {ROOT} && ray {subprocess.list2cmdline(words)}"
        return self.host.run("bash", "-c", line, timeout=timeout, check=check)

    def on_head(
        self, command: str, timeout: float = 240, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """`ray exec`: run a command on the head."""
        return self.ray("exec", self.file, command, timeout=timeout, check=check)
