"""Cluster DNS: names of Services, endpoints and Pods to addresses, by the Kubernetes DNS specification 1.1.0.

:mod:`~svcnat.dns.records` and :mod:`~svcnat.dns.answers` are pure: objects in, answers out. :mod:`~svcnat.dns.wire`
spells them (dnspython), :mod:`~svcnat.dns.responder` answers packets, :mod:`~svcnat.dns.forwarding` asks others, and
:mod:`~svcnat.dns.server` has the sockets' events. Where objects and sockets come from, the caller knows.
"""
