"""Parts of the machine: durable files, locks, child processes, signals, the processor."""
