"""Shuts the process that runs it off from network, files and other processes, for good. Linux only; no imports of ours.

Three walls of the kernel, none of which takes a privilege:
- Landlock (kernel 6.2, landlock(7)): files outside the given folders can be neither read nor changed, and nothing can
  be written or cut short anywhere; from kernel 6.7 on no TCP connection can be made either.
- seccomp (seccomp(2), filter mode): no sockets, no new processes or programs, no signals to others, no tracing, no
  change of modes, owners or clocks. Threads are allowed.
- resource limits (setrlimit(2)): CPU time, address space, file size, open files; no core dump.

It is run as a script in the child, before anything of a stranger's is read.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
import sys
from collections.abc import Iterable, Iterator

_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_LANDLOCK_READ, _LANDLOCK_WRITE = 0b1101, 0b0010  # execute, read a file, read a folder; write a file
_LANDLOCK_FS = {3: 15, 4: 15, 5: 16}  # ABI -> how many kinds of access it knows
_NO_NEW_PRIVS, _SET_SECCOMP, _FILTER = 38, 22, 2
_ALLOW, _EPERM, _ENOSYS = 0x7FFF0000, 0x00050001, 0x00050026
_CLONE_THREAD = 0x00010000
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_X32 = 0x40000000
_CLONE, _CLONE3 = (56, 220), (435, 435)
_DENIED: dict[str, tuple[int, int]] = {
    "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "execve": (59, 221), "execveat": (322, 281),
    "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "ptrace": (101, 117), "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271), "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438), "prlimit64": (302, 261), "io_uring_setup": (425, 425), "bpf": (321, 280),
    "mount": (165, 40), "umount2": (166, 39), "chroot": (161, 51), "setns": (308, 268), "unshare": (272, 97),
    "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218), "userfaultfd": (323, 282),
    "perf_event_open": (298, 241), "init_module": (175, 105), "finit_module": (313, 273), "kexec_load": (246, 104),
    "reboot": (169, 142), "setrlimit": (160, 164), "truncate": (76, 45), "swapon": (167, 224),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266), "sethostname": (170, 161),
    "shmget": (29, 194), "shmat": (30, 196), "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180),
    "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "fchown": (93, 55), "fchownat": (260, 54),
    "utimensat": (280, 88), "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16), "setpriority": (141, 140),
    "sched_setscheduler": (144, 119), "open_by_handle_at": (304, 265),
}  # fmt: skip
"""System calls that fail with EPERM: number on x86_64, on aarch64 (kernel sources, syscall_64.tbl and unistd.h)."""
_OLD = (57, 58, 90, 92, 94, 132, 235, 261)
"""Those that only x86_64 has: fork, vfork, chmod, chown, lchown, utime, utimes, futimesat."""
_FOLDERS = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib", "/lib64", "/usr/share/zoneinfo")
_FILES = ("/etc/ld.so.cache", "/etc/localtime", "/dev/urandom")
_NOWHERE = ("/dev/null",)


class _Rule(ctypes.Structure):
    """`struct landlock_path_beneath_attr`."""

    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


class _Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))


def confine(cpu_s: int, memory_bytes: int) -> None:
    """Put up all walls, or raise OSError that names the one that this kernel does not have. There is no way back."""
    _limit(cpu_s, memory_bytes)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no_new_privs is refused")
    _drop_capabilities(libc)
    _close_files(libc)
    _close_calls(libc)


def _limit(cpu_s: int, memory_bytes: int) -> None:
    limits = {
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
    }
    for kind, most in limits.items():
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    """Root without them is a user like others. capset(2), version 3."""
    header, none = struct.pack("=Ii", 0x20080522, 0), bytes(24)
    libc.capset(header, none)  # who has none to drop is refused, which is as good


def _close_files(libc: ctypes.CDLL) -> None:
    """Landlock: only what Python itself is made of can be read."""
    abi = libc.syscall(_LANDLOCK_CREATE, None, 0, 1)
    if abi < 1:
        raise OSError(ctypes.get_errno(), "the kernel has no Landlock (or it is switched off)")
    if abi < 3:  # opening a file to read it may cut it to nothing: a right of its own, and only since ABI 3
        raise OSError(0, f"Landlock of this kernel (ABI {abi}) does not keep files from being cut short; use Linux 6.2")
    handled = (1 << _LANDLOCK_FS.get(abi, 16)) - 1
    attributes = struct.pack("=QQQ", handled, 3, 3)[: 8 if abi < 4 else 16 if abi < 6 else 24]
    rules = libc.syscall(_LANDLOCK_CREATE, attributes, len(attributes), 0)
    if rules < 0:
        raise OSError(ctypes.get_errno(), "Landlock makes no ruleset")
    folders = (*_FOLDERS, sys.prefix, sys.base_prefix, sys.exec_prefix)
    files = _LANDLOCK_READ & 0b0111
    for paths, allowed in ((folders, _LANDLOCK_READ), (_FILES, files), (_NOWHERE, files | _LANDLOCK_WRITE)):
        _allow(libc, rules, paths, allowed)
    if libc.syscall(_LANDLOCK_RESTRICT, rules, 0) != 0:
        raise OSError(ctypes.get_errno(), "Landlock does not restrict this process")
    os.close(rules)


def _allow(libc: ctypes.CDLL, rules: int, paths: Iterable[str], allowed: int) -> None:
    for path in paths:
        try:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue  # not there, so nobody reads it
        if libc.syscall(_LANDLOCK_ADD, rules, 1, ctypes.byref(_Rule(allowed, place)), 0) != 0:
            raise OSError(ctypes.get_errno(), f"Landlock does not take {path}")
        os.close(place)


def _close_calls(libc: ctypes.CDLL) -> None:
    """seccomp: the filter, as classic BPF (seccomp(2); linux/filter.h)."""
    try:
        place, machine = _MACHINES[platform.machine()]
    except KeyError:
        raise OSError(0, f"no filter of system calls is written for {platform.machine()}") from None
    denied = [pair[place] for pair in _DENIED.values()] + (list(_OLD) if place == 0 else [])
    filled = b"".join(_instructions(machine, place, denied))
    code = ctypes.create_string_buffer(filled, len(filled))
    program = _Program(len(filled) // 8, ctypes.cast(code, ctypes.c_void_p))
    if libc.prctl(_SET_SECCOMP, _FILTER, ctypes.byref(program), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "seccomp takes no filter")


def _instructions(machine: int, place: int, denied: list[int]) -> Iterator[bytes]:
    """Each (code, jump if true, if false, constant): 0x20 loads, 0x15 and 0x35 compare, 0x45 tests bits, 6 ends."""

    def op(code: int, constant: int, yes: int = 0, no: int = 0) -> bytes:
        return struct.pack("=HBBI", code, yes, no, constant)

    yield op(0x20, 4)  # seccomp_data.arch
    yield op(0x15, machine, 1)
    yield op(0x06, _EPERM)
    yield op(0x20, 0)  # seccomp_data.nr
    if place == 0:
        yield op(0x35, _X32, 0, 1)
        yield op(0x06, _EPERM)
    yield op(0x15, _CLONE3[place], 0, 1)
    yield op(0x06, _ENOSYS)  # libraries go back to clone, whose flags can be read
    for number in denied:
        yield op(0x15, number, 0, 1)
        yield op(0x06, _EPERM)
    yield op(0x15, _CLONE[place], 0, 3)
    yield op(0x20, 16)  # the low half of seccomp_data.args[0]
    yield op(0x45, _CLONE_THREAD, 1)
    yield op(0x06, _EPERM)
    yield op(0x06, _ALLOW)
