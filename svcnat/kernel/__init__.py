"""The only code that touches the kernel: nftables, network namespaces, links, sysctls."""
