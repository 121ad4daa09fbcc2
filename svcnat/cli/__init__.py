"""The command line: one module a verb, kubectl's habits; only this layer prints or picks exit codes."""
