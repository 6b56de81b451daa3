"""The default profile: the system calls that a container may make, in docker's format.

Everything else fails with EPERM. The lists have docker's effect (a test holds them
against podman's and docker's own); they are grouped by what the calls are for, so that
a reader can see what is missing, and why:

    kernel keyrings (add_key, keyctl)           not divided by namespaces
    userfaultfd, io_uring_*                     the way of many escapes
    kexec_*, *_module, ioperm, swapon, …        about the machine, not the container
    bpf, perf_event_open, mount, setns, …       only with the capability that they need anyway:
                                                inside a user namespace everyone could have it
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ALLOW = "SCMP_ACT_ALLOW"
_ENOSYS = 38

_FILES = """
    access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3
    faccessat faccessat2 fadvise64 fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2
    fchown fchown32 fchownat fcntl fcntl64 fdatasync flock fstat fstat64 fstatat64 fstatfs
    fstatfs64 fsync ftruncate ftruncate64 futimesat getcwd getdents getdents64 ioctl lchown
    lchown32 link linkat _llseek lseek lstat lstat64 mkdir mkdirat mknod mknodat
    name_to_handle_at newfstatat open openat openat2 pipe pipe2 pread64 preadv preadv2
    pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv rename renameat
    renameat2 rmdir sendfile sendfile64 splice stat stat64 statfs statfs64 statx symlink
    symlinkat sync sync_file_range syncfs tee truncate truncate64 umask unlink unlinkat
    utime utimensat utimensat_time64 utimes vmsplice write writev
"""

_EXTENDED_ATTRIBUTES = """
    fgetxattr flistxattr fremovexattr fsetxattr getxattr getxattrat lgetxattr listxattr
    listxattrat llistxattr lremovexattr lsetxattr removexattr removexattrat setxattr setxattrat
"""

# To see mounts is harmless; to make them is not, and further below.
_WATCHING_FILES = """
    fanotify_mark inotify_add_watch inotify_init inotify_init1 inotify_rm_watch listmount
    statmount
"""

_WAITING = """
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait
    epoll_wait_old eventfd eventfd2 io_cancel io_destroy io_getevents io_pgetevents
    io_pgetevents_time64 io_setup io_submit _newselect pause poll ppoll ppoll_time64 pselect6
    pselect6_time64 select signalfd signalfd4
"""

_MEMORY = """
    brk cachestat madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock
    mlock2 mlockall mmap mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc
    pkey_free pkey_mprotect process_mrelease remap_file_pages
"""

_PROCESSES = """
    execve execveat exit exit_group fork getpgid getpgrp getpid getppid getsid gettid kill
    pidfd_open pidfd_send_signal prctl restart_syscall rt_sigaction rt_sigpending
    rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
    rt_sigtimedwait_time64 rt_tgsigqueueinfo setpgid setsid sigaltstack sigprocmask sigreturn
    tgkill tkill uretprobe vfork wait4 waitid waitpid
"""

_THREADS = """
    futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake getcpu get_robust_list
    get_thread_area rseq set_robust_list set_thread_area set_tid_address
"""

_SCHEDULING_AND_LIMITS = """
    getpriority getrlimit getrusage ioprio_get ioprio_set prlimit64 sched_getaffinity
    sched_getattr sched_getparam sched_get_priority_max sched_get_priority_min
    sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity
    sched_setattr sched_setparam sched_setscheduler sched_yield setpriority setrlimit times
    ugetrlimit
"""

# Which user a process may become is decided by its capabilities.
_USERS = """
    capget capset getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32
    getresgid getresgid32 getresuid getresuid32 getuid getuid32 setfsgid setfsgid32 setfsuid
    setfsuid32 setgid setgid32 setgroups setgroups32 setregid setregid32 setresgid setresgid32
    setresuid setresuid32 setreuid setreuid32 setuid setuid32
"""

# adjtimex and clock_adjtime change nothing without CAP_SYS_TIME.
_TIME = """
    adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64
    clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64 getitimer
    gettimeofday nanosleep setitimer time timer_create timer_delete timerfd_create
    timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 timer_getoverrun
    timer_gettime timer_gettime64 timer_settime timer_settime64
"""

# socketcall and ipc are how 32-bit programs make the calls around them; their arguments
# are in memory, where a filter cannot look.
_SOCKETS = """
    accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom
    recvmmsg recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto setsockopt shutdown
    socketcall socketpair
"""

_IPC = """
    ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend
    mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop
    semtimedop_time64 shmat shmctl shmdt shmget
"""

# A process may always bind itself more tightly.
_RESTRICTING_ITSELF = """
    landlock_add_rule landlock_create_ruleset landlock_restrict_self seccomp
"""

_ABOUT_THE_SYSTEM = "getrandom riscv_hwprobe sysinfo uname"

# Before 4.8 a tracer could change a call after the filter had looked at it.
_TRACING = "process_vm_readv process_vm_writev ptrace"

_ARCHITECTURES: tuple[tuple[tuple[str, ...], str], ...] = (
    (("ppc64le",), "swapcontext sync_file_range2"),
    (
        ("arm", "arm64"),
        "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2",
    ),
    (("amd64", "x32"), "arch_prctl"),
    (("amd64", "x32", "x86"), "modify_ldt"),
    (("s390", "s390x"), "s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr"),
    (("riscv64",), "riscv_flush_icache"),
)

_CAPABILITIES = (
    (
        "CAP_SYS_ADMIN",
        """
        bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie
        lsm_get_self_attr lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount
        open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog
        umount umount2 unshare
        """,
    ),
    ("CAP_BPF", "bpf"),
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    ("CAP_PERFMON", "perf_event_open"),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYSLOG", "syslog"),
    ("CAP_SYS_MODULE", "delete_module finit_module init_module"),
    ("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("CAP_SYS_PACCT", "acct"),
    (
        "CAP_SYS_PTRACE",
        "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    ),
    ("CAP_SYS_RAWIO", "ioperm iopl"),
    ("CAP_SYS_TIME", "clock_settime clock_settime64 settimeofday stime"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
)

# Address families that the kernel has, without AF_ALG (38) and AF_VSOCK (40): the one has
# led to escapes, the other reaches the hypervisor, past every network namespace. They are
# named one by one: the kernel looks at 32 bits of the argument and a filter at 64, so that
# `> 40` would let 38 through with a bit set above it.
_FIRST_FAMILIES = 12
_MORE_FAMILIES = (
    *(13, 14, 15, 16, 17, 18, 21, 22, 24, 26, 27, 28, 29, 30, 31, 32, 33),
    *(35, 36, 39, 41, 42, 43, 44, 45),
)

# Linux, and Linux on the 32-bit machine (what uname(2) says), each also under a number
# of 2.6 (UNAME26), and the question which one is in force. Not: ADDR_NO_RANDOMIZE.
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)

# CLONE_NEW*: namespaces of all kinds. Time is not one that clone(2) can make.
_NAMESPACE_FLAGS = 0x7E020000


def default_profile() -> dict[str, Any]:
    """The profile, as a value that `resolve` takes."""
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "archMap": [
            {
                "architecture": "SCMP_ARCH_X86_64",
                "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            },
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
        ],
        "syscalls": [
            _allow(
                _FILES
                + _EXTENDED_ATTRIBUTES
                + _WATCHING_FILES
                + _WAITING
                + _MEMORY
                + _PROCESSES
                + _THREADS
                + _SCHEDULING_AND_LIMITS
                + _USERS
                + _TIME
                + _SOCKETS
                + _IPC
                + _RESTRICTING_ITSELF
                + _ABOUT_THE_SYSTEM
            ),
            _allow(_TRACING, includes={"minKernel": "4.8"}),
            _allow("socket", args=[_compare("LT", _FIRST_FAMILIES)]),
            *(_allow("socket", args=[_compare("EQ", family)]) for family in _MORE_FAMILIES),
            *(_allow("personality", args=[_compare("EQ", one)]) for one in _PERSONALITIES),
            *(_allow(names, includes={"arches": list(a)}) for a, names in _ARCHITECTURES),
            *(_allow(names, includes={"caps": [name]}) for name, names in _CAPABILITIES),
            _allow(
                "clone",
                args=[_compare("MASKED_EQ", _NAMESPACE_FLAGS)],
                excludes={"caps": ["CAP_SYS_ADMIN"], "arches": ["s390", "s390x"]},
            ),
            # clone3's flags are in memory, where a filter cannot look. "Not implemented"
            # makes the C library fall back on clone.
            {
                "names": ["clone3"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": _ENOSYS,
                "excludes": {"caps": ["CAP_SYS_ADMIN"]},
            },
        ],
    }


def _allow(names: str, **conditions: Any) -> dict[str, Any]:
    return {"names": names.split(), "action": _ALLOW, **conditions}


def _compare(operator: str, number: int) -> dict[str, Any]:
    return {"index": 0, "value": number, "op": f"SCMP_CMP_{operator}"}
