"""Kubernetes Services for plain Linux."""

__version__ = "0.1.0"
