"""What kind of machine a figure comes from: enough to judge the figure, and nothing that identifies the machine."""

import os
import platform
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from toolkit import __version__

_SYSCTLS = (
    "net.core.rmem_max",
    "net.core.wmem_max",
    "net.core.rmem_default",
    "net.core.wmem_default",
    "net.core.netdev_max_backlog",
    "net.core.default_qdisc",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
    "net.ipv4.tcp_congestion_control",
    "net.ipv4.tcp_ecn",
    "net.ipv4.tcp_mtu_probing",
    "net.ipv4.tcp_no_metrics_save",
    "net.ipv4.udp_mem",
)


@dataclass(frozen=True, slots=True)
class HostInfo:
    """A host as a campaign records it; None where a record does not say.

    nettool, python: versions
    system, kernel, machine, cpu: for example "Linux", "6.1.0", "x86_64" and the processor's model name
    cores:           processors that the process may use
    governors:       CPU frequency governors in use, for example "performance"; empty where the system has none
    memory_bytes:    installed memory
    load_1min:       load average when the campaign began
    sysctl:          network settings of the kernel, by name
    """

    nettool: str | None = None
    python: str | None = None
    system: str | None = None
    kernel: str | None = None
    machine: str | None = None
    cpu: str | None = None
    cores: int | None = None
    memory_bytes: int | None = None
    load_1min: float | None = None
    sysctl: Mapping[str, str] = field(default_factory=dict)
    governors: Sequence[str] = field(default_factory=list)


def host_info() -> HostInfo:
    """This host, now."""
    return HostInfo(
        nettool=__version__,
        python=platform.python_version(),
        system=platform.system(),
        kernel=platform.release(),
        machine=platform.machine(),
        cpu=_cpu_model(),
        cores=_usable_cores(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        load_1min=round(os.getloadavg()[0], 2),
        governors=_governors(),
        sysctl={name: value for name in _SYSCTLS if (value := sysctl(name)) is not None},
    )


def offers_tcp_control(name: str, is_root: bool = False) -> bool:
    """Whether this kernel has a TCP congestion control, and lets this process choose it.

    is_root: choose it as root of a network namespace, who may choose any that the kernel has
    """
    if not hasattr(socket, "TCP_CONGESTION"):
        return False
    with socket.socket() as probe:
        try:
            probe.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name.encode())
        except PermissionError:
            return is_root
        except OSError:
            return False
    return True


def tcp_controls(is_root: bool = False) -> list[str]:
    """The TCP congestion controls that this process may choose now; see `offers_tcp_control`."""
    names = (sysctl("net.ipv4.tcp_available_congestion_control") or "").split()
    return sorted(name for name in names if offers_tcp_control(name, is_root))


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_model() -> str:
    for line in _read("/proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or "unknown"


def _governors() -> list[str]:
    files = Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")
    return sorted({text for file in files if (text := _read(str(file)).strip())})


def sysctl(name: str) -> str | None:
    """A setting of the kernel, its words separated by one space; None if this kernel has none of this name."""
    text = _read("/proc/sys/" + name.replace(".", "/"))
    return " ".join(text.split()) or None


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
