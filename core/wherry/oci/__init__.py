"""Types and digests of the OCI specifications."""

from __future__ import annotations

# The runtime-spec that we write, and read up to.
OCI_VERSION = "1.3.0"

# Our own bundles leave names of users and groups to the image's /etc/passwd and /etc/group,
USER_ANNOTATION = "org.wherry.user"
GROUPS_ANNOTATION = "org.wherry.groups"
# and ask for an init by this.
INIT_ANNOTATION = "org.wherry.init"
# and, where there is none, for a link to what is mounted, as docker's containers have it.
MTAB_ANNOTATION = "org.wherry.mtab"
MOUNT_TABLE = "/proc/mounts"
# image-spec's (conversion.md): what processor the programs are for.
ARCHITECTURE_ANNOTATION = "org.opencontainers.image.architecture"
# What a user that the image does not know is to be called in /etc/passwd.
PASSWD_ANNOTATION = "org.wherry.passwd"
# podman's and crun's: the program stays in the groups of whoever runs the command.
KEEP_GROUPS_ANNOTATION = "run.oci.keep_original_groups"
