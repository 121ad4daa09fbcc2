"""From the objects to the kernel: the passes that make a network namespace's rules equal to what is wanted."""
