"""`make bench`: wherry measured beside podman, docker, crun and bubblewrap, in one run.

measure   samples taken in turns, medians, ratios with their spread
engines   the contestants, each with all its state in a directory of its own
images    what they run and pull
machine   the machine of --backend vm
peer      what that is measured beside: a Debian with podman under the same QEMU
cases     what is measured, and the goals
"""
