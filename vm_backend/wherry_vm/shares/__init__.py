"""The host's directories in the machine: an SFTP server of ours here, sshfs in the guest."""
