"""Machines on one machine: Linux namespaces with own addresses, processes, /tmp and shared memory, and a switch.

    with Network(folder) as network:
        one, two, three = network.nodes
        one.run("hostname", "-I")        # 10.77.0.11
        network.cut(two)

Nothing of it is seen outside: the bridge lies in a namespace of its own (the switch), where an S3 server may run, too;
there is no route to anywhere else. To a node the file system is read-only but for /tmp, /dev/shm and /run, so that
nodes share nothing they could write to, except a folder that is asked for. All ends with the block, or with the process
that made it: the first process of a PID namespace takes all others with it.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
NET = "10.77.0"
SWITCH = f"{NET}.1"
S3_PORT = 9000
TOKEN = "0123456789abcdef" * 4
SHARED_MEMORY = "8g"

_INIT = """
hostname "$NAME"
mkdir -p "$FOLDER/tmp" && chmod 1777 "$FOLDER/tmp"
for file in "$FOLDER"/etc/*; do mount --bind "$file" "/etc/$(basename "$file")"; done
[ -z "$SHARED" ] || { mount --bind "$SHARED" "$SHARED_AT"; }
mount --bind "$FOLDER/tmp" /tmp
mount -t tmpfs -o "size=$SHARED_MEMORY,mode=1777" tmpfs /dev/shm
mount -t tmpfs -o mode=755 tmpfs /run
mount -o remount,ro,bind /
"""
_FIRST_PROCESS = "echo ready; while :; do sleep 3600 & wait $!; done"
"""bash takes over orphans, as the first process of a machine must."""


def unavailable() -> str | None:
    """Why there can be no such network here; None if there can."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    if os.geteuid() != 0:
        return "network namespaces ask for root"
    for tool in ("ip", "unshare", "nsenter", "setpriv", "bash"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    tried = subprocess.run(["unshare", "--net", "--pid", "--mount", "--uts", "--fork", "true"], capture_output=True)
    return None if tried.returncode == 0 else "this machine lets nobody make namespaces"


class Space:
    """Namespaces, held by their first process. `kinds` are options of unshare."""

    def __init__(self, kinds: Sequence[str], script: str = "", environment: Mapping[str, str] | None = None) -> None:
        self._enter = ["--net", "--pid", *(kind for kind in kinds if kind in ("--mount", "--uts"))]
        words = ["unshare", "--net", "--pid", "--fork", "--kill-child", *kinds]
        # With this process dies unshare, with unshare the first process, and with that one the rest.
        command = ["setpriv", "--pdeathsig", "KILL", *words, "bash", "-ec", script + _FIRST_PROCESS]
        self._holder = subprocess.Popen(command, env={**os.environ, **(environment or {})}, stdout=subprocess.PIPE)
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"ready\n":
            self.close()
            raise RuntimeError(f"no namespaces: {' '.join(words)}")
        self.pid = children(self._holder.pid)[0]
        """Of the first process, as the machine sees it."""

    def words(self, *words: object) -> list[str]:
        """The command that runs `words` inside."""
        return ["nsenter", "--target", str(self.pid), *self._enter, "--", *map(str, words)]

    def close(self) -> None:
        """Ends everything inside."""
        if self._holder.poll() is None:
            self._holder.kill()
        self._holder.wait()
        if self._holder.stdout is not None:
            self._holder.stdout.close()


class Node(Space):
    """A machine: its host name, its address, and what lies in `folder`/tmp as its /tmp."""

    def __init__(self, name: str, address: str, folder: Path, files: Mapping[str, str], shared: Path | None) -> None:
        self.name, self.address, self.folder = name, address, folder
        self.started: list[subprocess.Popen[bytes]] = []
        (folder / "etc").mkdir(parents=True)
        for file, text in files.items():  # over files of /etc that there are
            (folder / "etc" / file).write_text(text)
        places = {"SHARED": str(shared or ""), "SHARED_AT": "/mnt"}
        about = {"NAME": name, "FOLDER": str(folder), "SHARED_MEMORY": SHARED_MEMORY, **places}
        super().__init__(["--uts", "--mount", "--propagation", "private", "--mount-proc"], _INIT, about)
        self.environment = {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "HOME": "/tmp/home",
            "OMP_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "RAY_AUTH_MODE": "token",
            "RAY_USAGE_STATS_ENABLED": "0",
            "AWS_ENDPOINT_URL": f"http://{SWITCH}:{S3_PORT}",
            **AWS,
        }
        token = self.path("/tmp/home/.ray/auth_token")
        token.parent.mkdir(parents=True)
        token.write_text(TOKEN)
        token.chmod(0o600)

    def path(self, inside: str) -> Path:
        """Where the machine sees a file of the node's /tmp."""
        return self.folder / inside.lstrip("/")

    def run(
        self, *words: object, seconds: float = 120, check: bool = True, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end, and returns what it printed. AssertionError if it fails, unless told."""
        done = subprocess.run(
            self.words(*words),
            env={**self.environment, **environment},
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        assert not check or done.returncode == 0, f"{words} on {self.name}: {done.stdout[-5000:]}{done.stderr[-2000:]}"
        return done

    def start(self, *words: object, output: Path, folder: str = "/", **environment: str) -> subprocess.Popen[bytes]:
        """Starts a command; what it prints goes to a file of the machine."""
        # nsenter's working directory is lost on the way in.
        inside = ["env", f"--chdir={folder}", *map(str, words)]
        with output.open("ab") as printed:
            process = subprocess.Popen(
                self.words(*inside),
                env={**self.environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
            )
        self.started.append(process)
        return process

    def close(self) -> None:
        super().close()
        for process in getattr(self, "started", []):
            process.wait(timeout=30)


AWS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


class Network:
    """Nodes called node1, node2, ... at 10.77.0.11, .12, ... and the switch between them.

    `shared`: a folder that all nodes see at /mnt, as over NFS. `files`: text of files of /etc that nodes see instead of
    this machine's.
    """

    def __init__(
        self, folder: Path, count: int = 3, *, shared: Path | None = None, files: Mapping[str, str] | None = None
    ) -> None:
        self.folder, self.nodes, self._shared = folder, list[Node](), shared
        self._names = {f"node{place}": f"{NET}.{10 + place}" for place in range(1, count + 1)}
        hosts = "".join(f"{address} {name}\n" for name, address in self._names.items())
        self._files = {"hosts": f"127.0.0.1 localhost\n{hosts}", **(files or {})}

    def __enter__(self) -> "Network":
        with contextlib.ExitStack() as undo:
            self._switch = Space([])
            undo.callback(self._switch.close)
            self._on_switch("link", "set", "lo", "up")
            self._on_switch("link", "add", "switch", "type", "bridge")
            self._on_switch("addr", "add", f"{SWITCH}/24", "dev", "switch")
            self._on_switch("link", "set", "switch", "up")
            for name, address in self._names.items():
                node = Node(name, address, self.folder / name, self._files, self._shared)
                undo.callback(node.close)
                self.nodes.append(node)
                self._plug(node)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def cut(self, node: Node) -> None:
        """Pulls the cable: packets are lost, nobody is told."""
        self._on_switch("link", "set", node.name, "down")

    def mend(self, node: Node) -> None:
        self._on_switch("link", "set", node.name, "up")

    def serve_s3(self) -> None:
        """Starts moto on the switch; `requests` has every request that it answered."""
        words = [sys.executable, "-m", "moto.server", "--host", SWITCH, "--port", str(S3_PORT)]
        self._s3_log = self.folder / "s3.log"
        with self._s3_log.open("wb") as output:
            server = subprocess.Popen(self._switch.words(*words), stdout=output, stderr=subprocess.STDOUT)
        self._undo.callback(server.wait, 30)
        self._undo.callback(self._switch.close)
        ready = f"until echo > /dev/tcp/{SWITCH}/{S3_PORT}; do sleep 0.2; done"
        subprocess.run(self._switch.words("bash", "-c", ready), stderr=subprocess.DEVNULL, check=True, timeout=60)

    def requests(self) -> list[str]:
        """The S3 server's log: the client's address, the time, method and path, the status."""
        return self._s3_log.read_text(errors="replace").splitlines()

    def s3(self, program: str, *words: object) -> str:
        """Runs a Python program that has `s3`, an s3fs file system, and `sys.argv`; it sees this machine's files."""
        before = f"import sys, s3fs; s3 = s3fs.S3FileSystem(endpoint_url='http://{SWITCH}:{S3_PORT}');"
        command = self._switch.words(sys.executable, "-c", before + program, *words)
        done = subprocess.run(command, env={**os.environ, **AWS}, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _plug(self, node: Node) -> None:
        cable = ("link", "add", node.name, "type", "veth", "peer", "name", "eth0", "netns", node.pid)
        self._on_switch(*cable)
        self._on_switch("link", "set", node.name, "master", "switch", "up")
        for words in (("addr", "add", f"{node.address}/24", "dev", "eth0"), ("link", "set", "eth0", "up")):
            node.run("ip", *words)
        node.run("ip", "link", "set", "lo", "up")

    def _on_switch(self, *words: object) -> None:
        subprocess.run(["nsenter", "--target", str(self._switch.pid), "--net", "ip", *map(str, words)], check=True)


def children(pid: int) -> list[int]:
    """Of a process of this machine, inside of namespaces or not."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        found = [(task / "children").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
        return [int(child) for child in " ".join(found).split()]
    return []


def kill_tree(pid: int, number: int = signal.SIGKILL) -> None:
    """A process and all that came from it and still belongs to it."""
    tree = [pid]
    for parent in tree:
        tree += children(parent)
    for process in tree:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)


def namesakes(node: Node, word: str) -> Iterator[int]:
    """Processes of a node whose command line contains `word`."""
    own = Path(f"/proc/{node.pid}/ns/pid").readlink()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "ns/pid").readlink() == own and word in (process / "cmdline").read_text():
                yield int(process.name)
