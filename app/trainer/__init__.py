"""The service's side of training: uploads of datasets, jobs, and their metrics."""
