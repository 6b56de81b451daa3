"""The JSON documents of the OCI runtime specification, v1.3, as types.

Imported for type checking alone; what a key means is in the specification.
"""

from __future__ import annotations

from typing import Literal, TypedDict

NamespaceType = Literal["pid", "network", "ipc", "uts", "mount", "user", "cgroup", "time"]
Status = Literal["creating", "created", "running", "stopped"]


class IDMapping(TypedDict):
    """A range of ids: `size` of them from `containerID`, which are `hostID` onwards outside."""

    containerID: int
    hostID: int
    size: int


class Root(TypedDict, total=False):
    path: str
    readonly: bool


class Mount(TypedDict, total=False):
    """An entry of `mounts`."""

    destination: str
    type: str
    source: str
    options: list[str]
    uidMappings: list[IDMapping]
    gidMappings: list[IDMapping]


class Box(TypedDict):
    """A terminal's size in characters."""

    height: int
    width: int


class User(TypedDict, total=False):
    uid: int
    gid: int
    umask: int
    additionalGids: list[int]
    username: str


class Capabilities(TypedDict, total=False):
    bounding: list[str]
    effective: list[str]
    permitted: list[str]
    inheritable: list[str]
    ambient: list[str]


class Rlimit(TypedDict):
    type: str
    soft: int
    hard: int


class Scheduler(TypedDict, total=False):
    policy: str
    nice: int
    priority: int
    flags: list[str]
    runtime: int
    deadline: int
    period: int


# `class` is a keyword, hence the functional form.
IOPriority = TypedDict("IOPriority", {"class": str, "priority": int}, total=False)


class ExecCPUAffinity(TypedDict, total=False):
    initial: str
    final: str


class Process(TypedDict, total=False):
    """`process`: what runs in the container, and as whom."""

    terminal: bool
    consoleSize: Box
    user: User
    args: list[str]
    commandLine: str
    env: list[str]
    cwd: str
    capabilities: Capabilities
    rlimits: list[Rlimit]
    noNewPrivileges: bool
    apparmorProfile: str
    selinuxLabel: str
    oomScoreAdj: int
    scheduler: Scheduler
    ioPriority: IOPriority
    execCPUAffinity: ExecCPUAffinity


class Hook(TypedDict, total=False):
    path: str
    args: list[str]
    env: list[str]
    timeout: int


class Hooks(TypedDict, total=False):
    prestart: list[Hook]
    createRuntime: list[Hook]
    createContainer: list[Hook]
    startContainer: list[Hook]
    poststart: list[Hook]
    poststop: list[Hook]


class LinuxNamespace(TypedDict, total=False):
    type: NamespaceType
    path: str


class LinuxTimeOffset(TypedDict, total=False):
    secs: int
    nanosecs: int


class LinuxTimeOffsets(TypedDict, total=False):
    monotonic: LinuxTimeOffset
    boottime: LinuxTimeOffset


class LinuxDevice(TypedDict, total=False):
    """A device node to make; `fileMode` is a plain number."""

    type: str
    path: str
    major: int
    minor: int
    fileMode: int
    uid: int
    gid: int


class LinuxNetDevice(TypedDict, total=False):
    name: str


class LinuxDeviceCgroup(TypedDict, total=False):
    """A rule over device access; without a number it is about every one."""

    allow: bool
    type: str
    major: int
    minor: int
    access: str


class LinuxMemory(TypedDict, total=False):
    limit: int
    reservation: int
    swap: int
    kernel: int
    kernelTCP: int
    swappiness: int
    disableOOMKiller: bool
    useHierarchy: bool
    checkBeforeUpdate: bool


class LinuxCPU(TypedDict, total=False):
    shares: int
    quota: int
    burst: int
    period: int
    realtimeRuntime: int
    realtimePeriod: int
    cpus: str
    mems: str
    idle: int


class LinuxPids(TypedDict, total=False):
    limit: int


class LinuxWeightDevice(TypedDict, total=False):
    major: int
    minor: int
    weight: int
    leafWeight: int


class LinuxThrottleDevice(TypedDict):
    major: int
    minor: int
    rate: int


class LinuxBlockIO(TypedDict, total=False):
    weight: int
    leafWeight: int
    weightDevice: list[LinuxWeightDevice]
    throttleReadBpsDevice: list[LinuxThrottleDevice]
    throttleWriteBpsDevice: list[LinuxThrottleDevice]
    throttleReadIOPSDevice: list[LinuxThrottleDevice]
    throttleWriteIOPSDevice: list[LinuxThrottleDevice]


class LinuxHugepageLimit(TypedDict):
    pageSize: str
    limit: int


class LinuxInterfacePriority(TypedDict):
    name: str
    priority: int


class LinuxNetwork(TypedDict, total=False):
    classID: int
    priorities: list[LinuxInterfacePriority]


class LinuxRdma(TypedDict, total=False):
    hcaHandles: int
    hcaObjects: int


class LinuxResources(TypedDict, total=False):
    devices: list[LinuxDeviceCgroup]
    memory: LinuxMemory
    cpu: LinuxCPU
    pids: LinuxPids
    blockIO: LinuxBlockIO
    hugepageLimits: list[LinuxHugepageLimit]
    network: LinuxNetwork
    rdma: dict[str, LinuxRdma]
    unified: dict[str, str]


class LinuxIntelRdt(TypedDict, total=False):
    closID: str
    l3CacheSchema: str
    memBwSchema: str
    schemata: list[str]
    enableMonitoring: bool


class LinuxMemoryPolicy(TypedDict, total=False):
    mode: str
    nodes: str
    flags: list[str]


class LinuxPersonality(TypedDict, total=False):
    domain: str
    flags: list[str]


class LinuxSeccompArg(TypedDict, total=False):
    """A condition on one argument; `valueTwo` belongs to SCMP_CMP_MASKED_EQ alone."""

    index: int
    value: int
    valueTwo: int
    op: str


class LinuxSyscall(TypedDict, total=False):
    """A rule: what happens to the named calls where every condition in `args` holds."""

    names: list[str]
    action: str
    errnoRet: int
    args: list[LinuxSeccompArg]


class LinuxSeccomp(TypedDict, total=False):
    defaultAction: str
    defaultErrnoRet: int
    architectures: list[str]
    flags: list[str]
    listenerPath: str
    listenerMetadata: str
    syscalls: list[LinuxSyscall]


class Linux(TypedDict, total=False):
    """The Linux section."""

    namespaces: list[LinuxNamespace]
    uidMappings: list[IDMapping]
    gidMappings: list[IDMapping]
    timeOffsets: LinuxTimeOffsets
    devices: list[LinuxDevice]
    netDevices: dict[str, LinuxNetDevice]
    cgroupsPath: str
    resources: LinuxResources
    intelRdt: LinuxIntelRdt
    memoryPolicy: LinuxMemoryPolicy
    sysctl: dict[str, str]
    seccomp: LinuxSeccomp
    rootfsPropagation: str
    maskedPaths: list[str]
    readonlyPaths: list[str]
    mountLabel: str
    personality: LinuxPersonality


class Spec(TypedDict, total=False):
    """A bundle's config.json."""

    ociVersion: str
    root: Root
    mounts: list[Mount]
    process: Process
    hostname: str
    domainname: str
    hooks: Hooks
    annotations: dict[str, str]
    linux: Linux


class State(TypedDict, total=False):
    """What `state` answers, and what hooks read from their standard input."""

    ociVersion: str
    id: str
    status: Status
    pid: int
    bundle: str
    annotations: dict[str, str]


class ContainerProcessState(TypedDict, total=False):
    """What a seccomp listener is sent together with the notification descriptor."""

    ociVersion: str
    fds: list[str]
    pid: int
    metadata: str
    state: State
