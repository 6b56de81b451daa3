"""What the guest boots and what containers start from, made out of a distribution's packages.

    sources      where packages come from: options, the environment, the host's apt
    download     verified downloads, in parallel, kept by digest
    signature    OpenPGP signatures of an archive
    archive      Release and Packages: from a signature to each package's digest
    suites       an archive's suites together, read and fetched from
    packages     the index: names, versions, who provides what
    resolver     which packages are needed for those that were asked for
    deb          a .deb, read without any tool
    tree         a root file system as a list of entries, whatever it is written to
    erofs, cpio  a tree as a read-only file system, and as an initramfs
    debian       the tree of a Debian or Ubuntu base system, unpacked
    configure    the second stage: maintainer scripts, in a container of our own
    busybox      the tree of a busybox system: one package
    request      what is to be made, and of what
    image        a tree as an image of one layer
    bootstrap    all of it, into the image store
    stage        the second stage by wherry's engine
    guest        the VM's guest, out of packages

A base image and the VM's guest are both a `tree` of resolved packages; they differ in
what is asked for and in what the tree is written to.
"""
