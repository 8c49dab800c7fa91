"""Whether the kernel killed a process for want of host memory."""

from __future__ import annotations

from pathlib import Path


def oom_kills(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Processes killed so far in our control group, or on the whole machine; null where neither is readable."""
    own = cgroup / _own_cgroup(proc).lstrip("/")
    for events in (own / "memory.events", proc / "vmstat"):
        try:
            lines = events.read_text(encoding="ascii").splitlines()
        except (OSError, ValueError):
            continue
        counts = [line.split()[1] for line in lines if line.startswith("oom_kill ")]
        if counts:
            return int(counts[0])
    return None


def _own_cgroup(proc: Path) -> str:
    """Path of our group below the mount of version 2; the root where that is unknown."""
    try:
        lines = (proc / "self" / "cgroup").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return "/"
    return next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "/")
