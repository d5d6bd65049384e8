"""SLURM on this machine: a controller and two nodes, of Debian's packages, as long as a test needs them."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")  # apt-get install slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge
PATH = f"{os.environ['PATH']}:/usr/sbin"

# cred_expire: what is requeued waits until the credential of its first start has expired, 2 minutes by default.
CONF = """
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=3
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1
MpiDefault=none
ReturnToService=2
KillWait=2
OverTimeLimit=0
SlurmdTimeout=10
MaxArraySize=4
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
SlurmdParameters=config_overrides
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 State=UNKNOWN
NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 State=UNKNOWN
PartitionName=low Nodes=n1,n2 Default=YES PriorityTier=1 MaxTime=INFINITE State=UP
PartitionName=high Nodes=n1,n2 PriorityTier=10 MaxTime=INFINITE State=UP
"""


def is_there() -> bool:
    """Whether this machine has the daemons, and may start them."""
    return os.geteuid() == 0 and all(shutil.which(name, path=PATH) for name in DAEMONS)


def said(*command: str) -> str:
    """What a command of SLURM's prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def kill_node(folder: Path, name: str) -> None:
    """Kill a node's daemon. What runs there goes on, and SLURM, which hears nothing of the node, requeues it elsewhere."""
    os.kill(int((folder / f"{name}.pid").read_text()), signal.SIGKILL)
    _until(lambda: "down" in said("sinfo", "--noheader", "--nodes", name, "--partition=low", "--format=%t"))


def start_node(name: str) -> None:
    """Start a node's daemon again."""
    subprocess.run(["slurmd", "-N", name], check=True, capture_output=True)
    _until(lambda: "down" not in said("sinfo", "--noheader", "--nodes", name, "--partition=low", "--format=%t"))


def running() -> list[str]:
    """The tasks that run, those of the first node first."""
    return said("squeue", "--noheader", "--array", "--states=RUNNING", "--partition=low", "--sort=N", "--format=%i").split()


def begin_requeued() -> None:
    """Let tasks that were requeued begin now: SLURM has them wait for two minutes."""
    for task in said("squeue", "--noheader", "--array", "--states=PENDING", "--partition=low", "--format=%i").split():
        subprocess.run(["scontrol", "update", f"JobId={task}", "StartTime=now"], capture_output=True, check=False)


def _until(condition: Callable[[], object], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.5)


@contextlib.contextmanager
def slurm(folder: Path) -> Iterator[None]:
    """Within, the commands of this process, and of its children, speak to a SLURM of two nodes with two cores each."""
    folder.chmod(0o755)
    (folder / "state").mkdir()
    (folder / "key").write_bytes(secrets.token_bytes(1024))
    (folder / "key").chmod(0o400)
    conf = folder / "slurm.conf"
    conf.write_text(CONF.format(folder=folder, ports=_free_ports(3)))
    environment = {"SLURM_CONF": str(conf), "PATH": PATH}
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    files = [f"--{name}-file={folder}/{file}" for name, file in [("key", "key"), ("pid", "munged.pid"), ("seed", "seed")]]
    try:
        subprocess.run(
            ["munged", "--force", *files, f"--log-file={folder}/munged.log", f"--socket={folder}/munge.socket"],
            check=True,
            capture_output=True,
        )
        for daemon in (["slurmctld"], ["slurmd", "-N", "n1"], ["slurmd", "-N", "n2"]):
            subprocess.run(daemon, check=True, capture_output=True)
        _until(lambda: _nodes() == ["idle", "idle"])
        yield
    finally:
        with contextlib.suppress(subprocess.SubprocessError):
            said("scancel", "--user=root")
            time.sleep(3)
        for name in ("n1", "n2", "slurmctld", "munged"):
            with contextlib.suppress(OSError, ValueError):
                os.kill(int((folder / f"{name}.pid").read_text()), signal.SIGTERM)
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def _nodes() -> list[str]:
    with contextlib.suppress(subprocess.CalledProcessError):
        return said("sinfo", "--noheader", "--Node", "--partition=low", "--format=%t").split()
    return []


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
