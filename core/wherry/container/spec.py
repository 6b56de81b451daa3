"""What is asked of a container: the create body of the Docker Engine API, as types.

The keys are docker's. What docker cannot say is under "Wherry". Import this module
under TYPE_CHECKING only: a start of `wherry run` does not pay for `typing`.
"""

from __future__ import annotations

from typing import Literal, TypedDict


class HealthConfig(TypedDict, total=False):
    """HEALTHCHECK; durations in nanoseconds, 0 for docker's default."""

    Test: list[str]
    Interval: int
    Timeout: int
    StartPeriod: int
    StartInterval: int
    Retries: int


class RestartPolicy(TypedDict, total=False):
    Name: Literal["", "no", "always", "unless-stopped", "on-failure"]
    MaximumRetryCount: int


class Ulimit(TypedDict):
    Name: str
    Soft: int
    Hard: int


class DeviceMapping(TypedDict):
    PathOnHost: str
    PathInContainer: str
    CgroupPermissions: str


class DeviceRequest(TypedDict, total=False):
    """`--gpus`, and a CDI name of `--device` (Driver "cdi")."""

    Driver: str
    Count: int
    DeviceIDs: list[str]
    Capabilities: list[list[str]]
    Options: dict[str, str]


class LogConfig(TypedDict, total=False):
    Type: str
    Config: dict[str, str]


class PortBinding(TypedDict):
    HostIp: str
    HostPort: str


class WeightDevice(TypedDict):
    Path: str
    Weight: int


class ThrottleDevice(TypedDict):
    Path: str
    Rate: int


class BindOptions(TypedDict, total=False):
    Propagation: str
    NonRecursive: bool
    CreateMountpoint: bool
    ReadOnlyNonRecursive: bool
    ReadOnlyForceRecursive: bool


class DriverConfig(TypedDict, total=False):
    Name: str
    Options: dict[str, str]


class VolumeOptions(TypedDict, total=False):
    NoCopy: bool
    Labels: dict[str, str]
    DriverConfig: DriverConfig
    Subpath: str


class ImageOptions(TypedDict, total=False):
    Subpath: str


class TmpfsOptions(TypedDict, total=False):
    SizeBytes: int
    Mode: int
    Options: list[list[str]]


class WherryMount(TypedDict, total=False):
    """What `-v` says beyond docker's Mount."""

    # `U`: give the source's files to the container's user.
    Chown: bool
    # `idmap`, `idmap=uids=…;gids=…`: an idmapped mount; "" takes the container's own maps.
    IDMap: str
    # `O`: changes go to a layer of the container's own, never to the source.
    Overlay: bool
    # `z` or `Z`: SELinux label, shared or private.
    Relabel: str
    # `exec`, `nodev`, `nosuid`, … for the mount.
    Flags: list[str]


class Mount(TypedDict, total=False):
    """An entry of HostConfig.Mounts; also what `parse_bind` makes of one of Binds."""

    Type: Literal["bind", "volume", "tmpfs", "image"]
    Source: str
    Target: str
    ReadOnly: bool
    Consistency: str
    BindOptions: BindOptions
    VolumeOptions: VolumeOptions
    ImageOptions: ImageOptions
    TmpfsOptions: TmpfsOptions
    Wherry: WherryMount


class HostConfig(TypedDict, total=False):
    """What the host gives to the container."""

    Binds: list[str]
    ContainerIDFile: str
    LogConfig: LogConfig
    NetworkMode: str
    PortBindings: dict[str, list[PortBinding]]
    RestartPolicy: RestartPolicy
    AutoRemove: bool
    VolumeDriver: str
    VolumesFrom: list[str]
    ConsoleSize: list[int]
    Annotations: dict[str, str]
    CapAdd: list[str]
    CapDrop: list[str]
    CgroupnsMode: str
    Dns: list[str]
    DnsOptions: list[str]
    DnsSearch: list[str]
    ExtraHosts: list[str]
    GroupAdd: list[str]
    IpcMode: str
    Links: list[str]
    OomScoreAdj: int
    PidMode: str
    Privileged: bool
    PublishAllPorts: bool
    ReadonlyRootfs: bool
    SecurityOpt: list[str]
    StorageOpt: dict[str, str]
    Tmpfs: dict[str, str]
    UTSMode: str
    UsernsMode: str
    ShmSize: int
    Sysctls: dict[str, str]
    Runtime: str
    Isolation: str
    CpuShares: int
    Memory: int
    NanoCpus: int
    CgroupParent: str
    BlkioWeight: int
    BlkioWeightDevice: list[WeightDevice]
    BlkioDeviceReadBps: list[ThrottleDevice]
    BlkioDeviceWriteBps: list[ThrottleDevice]
    BlkioDeviceReadIOps: list[ThrottleDevice]
    BlkioDeviceWriteIOps: list[ThrottleDevice]
    CpuPeriod: int
    CpuQuota: int
    CpuRealtimePeriod: int
    CpuRealtimeRuntime: int
    CpusetCpus: str
    CpusetMems: str
    Devices: list[DeviceMapping]
    DeviceCgroupRules: list[str]
    DeviceRequests: list[DeviceRequest]
    MemoryReservation: int
    MemorySwap: int
    MemorySwappiness: int
    OomKillDisable: bool
    PidsLimit: int
    Ulimits: list[Ulimit]
    Mounts: list[Mount]
    MaskedPaths: list[str]
    ReadonlyPaths: list[str]
    Init: bool


class EndpointIPAMConfig(TypedDict, total=False):
    IPv4Address: str
    IPv6Address: str
    LinkLocalIPs: list[str]


class EndpointSettings(TypedDict, total=False):
    """How a container is attached to one network."""

    IPAMConfig: EndpointIPAMConfig
    Links: list[str]
    Aliases: list[str]
    MacAddress: str
    DriverOpts: dict[str, str]
    GwPriority: int


class NetworkingConfig(TypedDict, total=False):
    EndpointsConfig: dict[str, EndpointSettings]


class SecretMount(TypedDict, total=False):
    """One `--secret`; what it holds is never in a body, it goes to the engine apart."""

    Name: str
    # "mount": a file at Target; "env": the variable Target.
    Type: Literal["mount", "env"]
    Target: str
    UID: int
    GID: int
    Mode: int


class ClockOffsets(TypedDict, total=False):
    """Seconds by which the clocks of the time namespace are ahead of the host's."""

    monotonic: float
    boottime: float


class StartupHealth(TypedDict, total=False):
    """The check that has to succeed before the health check begins; as in HealthConfig."""

    Test: list[str]
    Interval: int
    Timeout: int
    # Failures after which the container is restarted; 0 for never.
    Retries: int
    # How many successes it takes; 0 for one.
    Successes: int


class ProcessIdentity(TypedDict):
    """A process, whoever gets its number after it."""

    Pid: int
    # In clock ticks since the boot that BootId names.
    StartTime: int
    BootId: str


class WherryConfig(TypedDict, total=False):
    """What docker's body has no word for."""

    # What processor the image is for, where it is another than this machine's.
    Architecture: str
    # A step of a build: it is in no list of containers, and tells of no events.
    Build: bool
    Builder: ProcessIdentity
    CgroupConf: dict[str, str]
    ClockOffsets: ClockOffsets
    HealthOnFailure: Literal["none", "kill", "restart", "stop"]
    # Leave /etc/hosts, /etc/hostname as the image has them.
    NoHosts: bool
    NoHostname: bool
    # Whether a user that the image does not know gets a line in /etc/passwd; where it is
    # not said, with `--userns keep-id` alone.
    Passwd: bool
    HostsFile: str
    Personality: str
    # Where to write the first process's id.
    PidFile: str
    # File descriptors 3, 4, … of the command that go on to the first process.
    PreserveFds: int
    # With ReadonlyRootfs: keep /run, /tmp and /var/tmp writable.
    ReadonlyTmpfs: bool
    # `--rmi`: remove the image too, where nothing else uses it.
    RemoveImage: bool
    # A directory of the host to run in place of an image.
    Rootfs: str
    # Who tells NOTIFY_SOCKET that the container is ready.
    SdNotify: Literal["container", "conmon", "healthy"]
    Secrets: list[SecretMount]
    StartupHealth: StartupHealth
    # "host" leaves the container in the host's time namespace.
    TimeMode: str
    # Seconds after which the container is killed.
    Timeout: int
    # An IANA name, or "local" for the host's.
    Timezone: str
    Umask: str
    UnsetEnv: list[str]
    UnsetEnvAll: bool


class ContainerConfig(TypedDict, total=False):
    """What the container is, on whatever host."""

    Hostname: str
    Domainname: str
    User: str
    AttachStdin: bool
    AttachStdout: bool
    AttachStderr: bool
    ExposedPorts: dict[str, dict[str, str]]
    Tty: bool
    OpenStdin: bool
    StdinOnce: bool
    Env: list[str]
    Cmd: list[str] | None
    Healthcheck: HealthConfig
    Image: str
    Volumes: dict[str, dict[str, str]]
    WorkingDir: str
    # None: the image's. [""]: none at all.
    Entrypoint: list[str] | None
    MacAddress: str
    Labels: dict[str, str]
    StopSignal: str
    StopTimeout: int


class CreateBody(ContainerConfig, total=False):
    """POST /containers/create."""

    HostConfig: HostConfig
    NetworkingConfig: NetworkingConfig
    Wherry: WherryConfig


class ExecConfig(TypedDict, total=False):
    """POST /containers/{id}/exec."""

    AttachStdin: bool
    AttachStdout: bool
    AttachStderr: bool
    Tty: bool
    Cmd: list[str]
    Env: list[str]
    Privileged: bool
    User: str
    WorkingDir: str
    ConsoleSize: list[int]
