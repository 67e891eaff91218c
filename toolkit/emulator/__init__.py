"""Links in real time: two network namespaces, between which a process runs the models of `toolkit.netmodel`.

Start at `link.py` (an open link) and `tun.py` (packets in and out). `toolkit/netmodel/path.py` decides which packets
are dropped.
"""
