"""The contract between training and serving: the package of a version, and the repository that holds it."""
