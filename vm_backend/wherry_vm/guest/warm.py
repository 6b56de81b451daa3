"""What is imported before the first command comes."""

from __future__ import annotations

# What most commands load: a fork has them.
WARM = (
    "_blake2",
    "wherry.cli.main", "wherry.cli.run", "wherry.cli.exec", "wherry.cli.ps", "wherry.cli.lifecycle",
    "wherry.cli.container", "wherry.cli.image", "wherry.cli.inspect", "wherry.cli.tables",
    "wherry.engine", "wherry.engine.containers", "wherry.engine.creation", "wherry.engine.launch",
    "wherry.engine.mounts", "wherry.engine.query", "wherry.engine.runtime_mounts",
    "wherry.engine.session", "wherry.engine.settle", "wherry.engine.streams",
    "wherry.engine.images", "wherry.container.bundle", "wherry.container.logs",
    "wherry.container.userns", "wherry.image.config", "wherry.image.digests", "wherry.image.store",
    "wherry_linux.backend", "wherry_linux.runtime", "wherry_linux.creation", "wherry_linux.mounts",
    "wherry_linux.rootfs", "wherry_linux.process", "wherry_linux.monitor", "wherry_linux.joining",
    "wherry_linux.detached", "wherry_linux.limits", "wherry_linux.cgroups",
    "wherry_linux.seccomp", "wherry_linux.seccomp.profile", "wherry_linux.seccomp.resolve",
    "wherry_linux.network.bridges", "wherry_linux.network.firewall", "wherry_linux.network.host",
    "wherry_linux.network.links", "wherry_linux.network.publishing",
    "wherry_linux.network.usermode",
)  # fmt: skip
# What the agent loads, and the runner's server, when something is asked of them.
LATER = (
    "subprocess",
    "wherry_vm.guest.__main__", "wherry_vm.guest.connection", "wherry_vm.guest.listeners",
    "wherry_vm.guest.news", "wherry_vm.guest.runner", "wherry_vm.guest.serve",
    "wherry_vm.guest.surroundings",
)  # fmt: skip
