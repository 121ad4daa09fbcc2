"""The kubelet of a namespace lab: nodes, clients and pods as network namespaces, with stand-in servers in the pods.

The names of the namespaces are a promise to scripts: ``svcnat.LAB.NODE``, ``svcnat.LAB.NAMESPACE.POD``,
``svcnat.LAB.client``, ``svcnat.LAB.client-2``, ``svcnat.LAB.router`` (see :mod:`svcnat.lab.names`).
"""
