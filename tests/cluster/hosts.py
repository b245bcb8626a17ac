"""Several Linux hosts on one machine, for tests of what crosses a network and of losing a machine.

A host is a set of namespaces (net, pid, mount, uts, ipc) with an address, /tmp/ray, /dev/shm,
home folder and sshd of its own, on a bridge with the others. Killing its init is a power-off,
taking its link down a pulled cable. What is *not* its own: the kernel, its clock, the
processors, and every other folder (so a folder outside is storage that all hosts share).

    with Hosts(3) as hosts:
        hosts[0].run("ray", "start", "--head", ...)
        hosts[1].power_off()

Needs root, iproute2, util-linux and openssh-server. `python -m tests.cluster.hosts 3` boots
three to look at.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parents[2]
BASE = Path(tempfile.gettempdir()) / "genray-hosts"
SETS = range(16)  # sets of hosts that may exist side by side: 10.77.SET.0/24
TOOLS = ("ip", "unshare", "nsenter", "setpriv", "ssh-keygen", "sshd")


def missing() -> str:
    """Why no hosts can be made here; empty when they can."""
    if os.geteuid() != 0:
        return "hosts are made of namespaces: needs root"
    if lost := [tool for tool in TOOLS if not _find(tool)]:
        return f"hosts need {', '.join(lost)}: run 'make system-deps'"
    probe = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--fork", "true"], capture_output=True, text=True
    )
    return "" if probe.returncode == 0 else f"no namespaces here: {probe.stderr.strip()}"


def _find(tool: str) -> str | None:
    return shutil.which(tool, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _ip(*words: str, check: bool = True) -> None:
    subprocess.run(["ip", *words], check=check, capture_output=not check)


class Host:
    """One machine. It is off until `boot`."""

    def __init__(self, hosts: "Hosts", index: int):
        self._hosts, self.index = hosts, index
        self.name = f"{hosts.prefix}{index}"
        self.address = f"{hosts.subnet}.{10 + index}"
        self.files = hosts.folder / f"h{index}"
        """Its own folders: root/ is its /root, ray/ its /tmp/ray, run/ its /run."""
        self._link = f"{self.name}v"
        self._unshare: subprocess.Popen | None = None
        self._init = 0

    @property
    def is_on(self) -> bool:
        return self._unshare is not None and self._unshare.poll() is None

    def boot(self, clean: bool = True) -> None:
        """Switch it on, with the address it always has; `clean`: with an empty disk. Returns
        when sshd listens.
        """
        assert not self.is_on, f"{self.name} is on"
        if clean:
            subprocess.run(["rm", "-rf", "--one-file-system", str(self.files)], check=True)
        for folder in ("ray", "run/sshd", "root/.ssh"):
            (self.files / folder).mkdir(parents=True, exist_ok=True)
        shutil.copy(self._hosts.folder / "key.pub", self.files / "root/.ssh/authorized_keys")
        for path, mode in (
            ("root", 0o700),
            ("root/.ssh", 0o700),
            ("root/.ssh/authorized_keys", 0o600),
        ):
            (self.files / path).chmod(mode)
        exports = [f"export {name}='{value}'" for name, value in self._hosts.environment.items()]
        (self.files / "root/.bashrc").write_text("\n".join(exports) + "\n")

        _ip("netns", "add", self.name)
        _ip("link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        # The same hardware address every time: the others' neighbour tables outlive a power-off.
        mac = f"02:67:72:{int(self.address.split('.')[2]):02x}:00:{self.index:02x}"
        _ip("-n", self.name, "link", "set", "eth0", "address", mac)
        _ip("link", "set", self._link, "master", self._hosts.bridge, "up")
        _ip("-n", self.name, "addr", "add", f"{self.address}/24", "dev", "eth0")
        for link in ("lo", "eth0"):
            _ip("-n", self.name, "link", "set", link, "up")
        _ip("-n", self.name, "route", "add", "default", "via", f"{self._hosts.subnet}.254")

        with (self.files / "init.log").open("wb") as log:
            # pdeathsig and kill-child: when this process dies, however it does, so does every
            # process of the host.
            spaces = [
                "unshare",
                "--mount",
                "--pid",
                "--uts",
                "--ipc",
                "--fork",
                "--kill-child",
                "--mount-proc",
            ]
            enter = ["setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", self.name]
            self._unshare = subprocess.Popen(
                [*enter, *spaces, "bash", "-c", self._hosts.init_script(self)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        children = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children")
        for _ in range(200):
            if not self.is_on:
                break
            if pids := children.read_text().split():
                self._init = int(pids[0])
                if self.reaches("127.0.0.1"):
                    return
            time.sleep(0.05)
        raise RuntimeError(f"{self.name} does not come up: {(self.files / 'init.log').read_text()}")

    def power_off(self) -> None:
        """All at once and in silence: no process ends in order, no connection is closed, memory
        is gone.
        """
        if self._unshare is None:
            return
        self.cut()
        with contextlib.suppress(ProcessLookupError):
            if self._init:
                os.kill(self._init, signal.SIGKILL)
            self._unshare.kill()
        self._unshare.wait()
        self._unshare, self._init = None, 0
        # With its network namespace goes its kernel's memory of connections: nothing is sent when
        # it boots again.
        _ip("link", "del", self._link, check=False)
        _ip("netns", "del", self.name, check=False)

    def cut(self) -> None:
        """Pull its cable: its processes go on, nothing gets in or out."""
        _ip("link", "set", self._link, "down")

    def heal(self) -> None:
        _ip("link", "set", self._link, "up")

    def words(self, *words: str, env: Mapping[str, str] | None = None) -> list[str]:
        """The command line that runs `words` on this host."""
        values = {"HOME": "/root", **self._hosts.environment, **(env or {})}
        enter = [
            "nsenter",
            "-t",
            str(self._init),
            "-m",
            "-n",
            "-p",
            "-u",
            "-i",
            "--wd=/root",
            "env",
            # what this process told its own Ray does not hold on another host
            *(f"--unset={name}" for name in os.environ if name.startswith("RAY_")),
        ]
        return [*enter, *(f"{name}={value}" for name, value in values.items()), *words]

    def run(
        self,
        *words: str,
        env: Mapping[str, str] | None = None,
        timeout: float = 120,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command at its console (a pulled cable does not matter) and wait for it."""
        done = subprocess.run(
            self.words(*words, env=env),
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )
        if check and done.returncode:
            raise RuntimeError(
                f"{self.name}: {' '.join(words)} ended with "
                f"{done.returncode}:\n{done.stdout}{done.stderr}"
            )
        return done

    def start(
        self, *words: str, log: Path, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen:
        """Start a command at its console; what it prints is appended to `log`, a path outside."""
        with log.open("ab") as stream:
            return subprocess.Popen(
                self.words(*words, env=env),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
            )

    def processes(self) -> list[tuple[int, str]]:
        """(pid as the host sees it, command line) of all its processes."""
        listed = self.run("ps", "-e", "-ww", "-o", "pid=,args=").stdout.splitlines()
        return [
            (int(pid), words) for pid, _, words in (line.strip().partition(" ") for line in listed)
        ]

    def reaches(self, address: str, port: int = 22) -> bool:
        """A connection comes about within a second."""
        script = f"exec 3<>/dev/tcp/{address}/{port}"
        return self.run("timeout", "1", "bash", "-c", script, check=False).returncode == 0

    def memory_mib(self) -> float:
        """Proportional set size of all its processes: memory that several share counts once
        among them.
        """
        script = (
            "cat /proc/[0-9]*/smaps_rollup 2>/dev/null | awk '/^Pss:/ {s += $2} END {print s / "
            "1024}'"
        )
        return float(self.run("bash", "-c", script).stdout)


class Hosts(Sequence[Host]):
    """`count` hosts that are on, and gone without a trace at the end. What killed runs left
    behind is removed first.
    """

    def __init__(self, count: int, shm: str = "512m"):
        self._count, self._shm = count, shm
        self._hosts: list[Host] = []

    def __enter__(self) -> Self:
        BASE.mkdir(exist_ok=True)
        self._take_a_set()
        try:
            self.folder.mkdir(parents=True)
            for name in ("key", "hostkey"):
                words = [
                    "ssh-keygen",
                    "-q",
                    "-t",
                    "ed25519",
                    "-N",
                    "",
                    "-f",
                    str(self.folder / name),
                ]
                subprocess.run(words, check=True)
            names = [
                f"{self.subnet}.{10 + index} {self.prefix}{index}" for index in range(self._count)
            ]
            (self.folder / "hosts").write_text("\n".join(["127.0.0.1 localhost", *names]) + "\n")
            # A name server that cannot be reached makes every Ray start 15 to 30 s slower: hence
            # none.
            (self.folder / "resolv.conf").write_text("")
            _ip("link", "add", self.bridge, "type", "bridge")
            _ip("addr", "add", f"{self.subnet}.254/24", "dev", self.bridge)
            _ip("link", "set", self.bridge, "up")
            self._hosts = [Host(self, index) for index in range(self._count)]
            for host in self._hosts:
                host.boot()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for host in self._hosts:
            host.power_off()
        _remove(self.prefix, self.folder)
        self._lock.close()

    def __getitem__(self, index: Any) -> Any:
        return self._hosts[index]

    def __len__(self) -> int:
        return len(self._hosts)

    def __iter__(self) -> Iterator[Host]:
        return iter(self._hosts)

    @property
    def key(self) -> Path:
        """The private key that every host's root accepts."""
        return self.folder / "key"

    @property
    def environment(self) -> dict[str, str]:
        """What a shell on a host finds: this Python first, this checkout, and Ray left to what
        the test asks for.
        """
        return {
            "PATH": f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",  # noqa: E501
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    def init_script(self, host: Host) -> str:
        """What a host's first process does: its own folders in place of the machine's, then sshd
        for ever.
        """
        files, keep, home = host.files, "", Path.home().resolve()
        for path in {Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve(), ROOT}:
            if path.is_relative_to(home):  # it lives in the home folder that the host does not have
                place = files / "root" / path.relative_to(home)
                keep += f"mkdir -p {place}; mount --bind {path} {place}\n"
        return f"""set -e
mount --make-rprivate /
mkdir -p /tmp/ray; mount --bind {files}/ray /tmp/ray
{keep}mount --rbind {files}/root {home}
[ {home} = /root ] || mount --rbind {files}/root /root
mount -t tmpfs -o size={self._shm} tmpfs /dev/shm
mount --bind {files}/run /run
hostname {host.name}
mount --bind {self.folder}/hosts /etc/hosts
mount --bind {self.folder}/resolv.conf /etc/resolv.conf
{_find("sshd")} -D -e -h {self.folder}/hostkey -o PidFile=none -o UsePAM=no -o PermitRootLogin=prohibit-password \
  -o StrictModes=no &
set +e
while :; do sleep 3600 & wait $!; done"""  # noqa: E501

    def _take_a_set(self) -> None:
        """Lock a free set of names and addresses; clear away what is left of those whose owner
        is gone.
        """
        taken = None
        for number in SETS:
            if taken is not None and not (BASE / f"{number}.lock").exists():
                continue
            lock = open(BASE / f"{number}.lock", "w")  # noqa: SIM115 - held until the hosts are gone
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                continue
            _remove(f"gr{number}h", BASE / str(number))
            if taken is None:
                taken, self._lock = number, lock
            else:
                lock.close()
        if taken is None:
            raise RuntimeError(f"all {len(SETS)} sets of hosts are in use: see {BASE}")
        self.prefix, self.bridge, self.subnet = f"gr{taken}h", f"gr{taken}br", f"10.77.{taken}"
        self.folder = BASE / str(taken)


def _remove(prefix: str, folder: Path) -> None:
    """Remove the namespaces, links and files of one set; its processes have died with the one
    that started them.
    """
    spaces = Path("/run/netns")
    for name in sorted(path.name for path in spaces.glob(f"{prefix}*")) if spaces.is_dir() else []:
        for pid in subprocess.run(
            ["ip", "netns", "pids", name], capture_output=True, text=True
        ).stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        _ip("link", "del", f"{name}v", check=False)
        _ip("netns", "del", name, check=False)
    _ip("link", "del", prefix.removesuffix("h") + "br", check=False)
    if folder.exists():
        subprocess.run(["rm", "-rf", "--one-file-system", str(folder)], check=True)


def main() -> None:
    with Hosts(int(sys.argv[1]) if len(sys.argv) > 1 else 2) as hosts:
        for host in hosts:
            print(f"{host.name}: ssh -i {hosts.key} root@{host.address}")
        input("Enter switches them off and removes them. ")


if __name__ == "__main__":
    main()
