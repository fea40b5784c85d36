"""The service's reports on itself: metrics, traces, logs."""
