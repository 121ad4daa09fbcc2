"""The objects of every benchmark: Services that have an EndpointSlice each."""

from __future__ import annotations


def service(number: int) -> dict:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": "default", "name": f"service-{number}"},
        "spec": {
            "clusterIP": f"10.100.{number // 250}.{number % 250 + 1}",
            "ports": [{"port": 80, "targetPort": 8080}],
        },
    }


def endpoint_slice(number: int, endpoints: int) -> dict:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": "default",
            "name": f"service-{number}",
            "labels": {"kubernetes.io/service-name": f"service-{number}"},
        },
        "addressType": "IPv4",
        "ports": [{"port": 8080}],
        "endpoints": [
            {"addresses": [f"10.{200 + each}.{number // 250}.{number % 250 + 1}"]} for each in range(endpoints)
        ],
    }
