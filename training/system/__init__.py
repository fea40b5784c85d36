"""What the machine gives: durable files, locks, child processes, signals, the processor."""
