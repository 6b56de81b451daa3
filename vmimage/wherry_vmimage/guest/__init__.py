"""The VM's guest: a kernel, an initramfs and a root file system, made of packages.

contents     which packages, and what is taken of them
settings     users, links and what maintainer scripts would have done
files        what runs in the guest that is neither a package's nor wherry's
kernel       the kernel in the form in which QEMU boots it
modules      kernel modules: which, decompressed, and what depmod writes about them
bytecode     Python's .pyc, by an interpreter of the guest's version
bundle       that of what the guest's runner imports at its start, in one file
initramfs    the first steps: enough to find the root and to enter it
lock         the packages of an image, recorded to make the same again
licences     whose work is in an image, and on what terms
build        all of it, into a directory
wheel        that directory as something that pip installs
"""
