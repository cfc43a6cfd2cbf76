"""A real SLURM of two nodes, n1 and n2, on this machine: as any user, beside others, without systemd."""

import getpass
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
NODES = ("n1", "n2")
CONF = """\
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
StateSaveLocation={folder}/ctld
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/ctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/ctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
JobRequeue=1
# So that tests are fast: what is lost is noticed in seconds, and what can start starts in one.
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=100000,batch_sched_delay=1
SlurmdTimeout=10
BatchStartTimeout=5
KillWait=20
OverTimeLimit=0
MinJobAge=3600
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory=4000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 RealMemory=4000
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=20
PartitionName=urgent Nodes=n1,n2 MaxTime=INFINITE State=UP PriorityTier=2
"""


def missing() -> list[str]:
    """The programs that are needed and not installed."""
    return [program for program in NEEDED if shutil.which(program) is None]


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def wait(what: str, ready: Callable[[], object], timeout: float = 60) -> None:
    """Wait until `ready()` is true.

    Raises:
        TimeoutError: if it is not so after `timeout` seconds.
    """
    end = time.monotonic() + timeout
    while not ready():
        if time.monotonic() > end:
            raise TimeoutError(f"not after {timeout} s: {what}")
        time.sleep(0.1)


class Lab:
    """The daemons, and the user's commands.

    Args:
        folder: for the configuration, the state and the logs; short, as a socket's path is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.conf = folder / "slurm.conf"
        host = socket.gethostname().split(".")[0]
        ports = free_ports(3)
        for name in ("munge", "ctld", *NODES):
            (folder / name).mkdir(mode=0o755)
        self.conf.write_text(CONF.format(host=host, ports=ports, user=getpass.getuser(), folder=folder))
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("SLURM")},
            "SLURM_CONF": str(self.conf),
            # `python` in a script is the one that runs the tests.
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }

    def start(self) -> None:
        """Start all daemons, and wait until both nodes are idle."""
        munge = self.folder / "munge"
        (munge / "key").write_bytes(os.urandom(1024))
        (munge / "key").chmod(0o400)
        files = {
            "key-file": "key",
            "socket": "socket",
            "pid-file": "pid",
            "log-file": "log",
            "seed-file": "seed",
        }
        # --force: the folder may lie under one that others can write to, like /tmp.
        self._daemon("munged", "--force", *(f"--{key}={munge / name}" for key, name in files.items()))
        self._daemon("slurmctld", "-f", str(self.conf))
        for node in NODES:
            self.start_node(node)

    def _daemon(self, *command: str) -> None:
        # With a high limit on open files, slurmd takes a minute to launch a job: it closes each of them.
        limited = ["bash", "-c", 'ulimit -n 4096 && exec "$@"', "bash", *command]
        done = subprocess.run(
            limited, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if done.returncode:
            raise OSError(f"{command[0]} does not start: {done.stdout}{done.stderr}")

    def start_node(self, node: str) -> None:
        """Start the daemon of one node, and wait until the controller has taken note.

        slurmctld 22.05 can fall over a lost job that starts again in the moment that its node comes back.
        """
        self._daemon("slurmd", "-N", node, "-f", str(self.conf))

        def is_idle() -> bool:
            # One that a waiting job is planned for is idle, too.
            return "State=IDLE" in self.run("scontrol", "-o", "show", "node", node)

        wait(f"{node} is idle", is_idle)

    def lose_node(self, node: str) -> None:
        """Kill all that runs at a node, as if its power had failed."""
        doomed = [int((self.folder / f"{node}.pid").read_text())]
        marks = {f"SLURMD_NODENAME={node}".encode(), f"SLURM_CONF={self.conf}".encode()}
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it may have ended
                if marks <= set((process / "environ").read_bytes().split(b"\0")):
                    parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
                    if Path(f"/proc/{parent}/cmdline").read_bytes().startswith(b"slurmstepd"):
                        doomed.append(parent)
                    doomed.append(int(process.name))
        for number in doomed:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)

    def run(self, *command: object, cwd: Path | None = None) -> str:
        """Run one of SLURM's commands; returns what it says.

        Raises:
            OSError: with what it says, if it fails.
        """
        done = subprocess.run(
            [str(word) for word in command], env=self.environment, cwd=cwd, capture_output=True, text=True
        )
        if done.returncode:
            raise OSError(f"{command[0]}: {done.stdout}{done.stderr}")
        return done.stdout.strip()

    def submit(self, script: Path, *options: str, arguments: Sequence[str] = ()) -> str:
        """Submit a script from its own folder; returns the job's id."""
        return self.run("sbatch", "--parsable", *options, script, *arguments, cwd=script.parent)

    def show(self, job: str, key: str) -> str:
        """One of the values that `scontrol show job` knows of a job."""
        found = re.search(rf"(?:^|\s){key}=(\S+)", self.run("scontrol", "-o", "show", "job", job))
        assert found, key
        return found[1]

    def wait_for(self, job: str, *states: str, timeout: float = 60) -> str:
        """Wait until a job is in one of these states; returns which."""
        wait(f"{job} is {states}", lambda: self.show(job, "JobState") in states, timeout)
        return self.show(job, "JobState")

    def start_again(self, job: str, timeout: float = 60) -> None:
        """Wait until a job is requeued, and let it start soon: SLURM would wait for two minutes.

        slurmd refuses to start a job in the second in which it has ended it: the credential looks like the
        one that was revoked.
        """
        self.wait_for(job, "PENDING", timeout=timeout)
        self.run("scontrol", "update", f"jobid={job}", "StartTime=now+2")
        self.wait_for(job, "RUNNING", "COMPLETING", "COMPLETED")

    def clear(self) -> None:
        """End all jobs."""

        def none_is_left() -> bool:
            for how in ((), ("--signal=KILL",)):
                self.run("scancel", "--quiet", *how, f"--user={getpass.getuser()}")
            return not self.run("squeue", "-h")

        wait("all jobs have ended", none_is_left)

    def stop(self) -> None:
        """End all jobs, then all daemons by their pid files."""
        with suppress(OSError):
            self.clear()
        for name in ("n1.pid", "n2.pid", "ctld.pid", "munge/pid"):
            with suppress(OSError, ValueError):
                os.kill(int((self.folder / name).read_text()), signal.SIGTERM)
