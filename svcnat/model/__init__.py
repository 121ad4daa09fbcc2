"""Pure: the Kubernetes objects that svcnat reads, their defaults, validation and selectors."""
