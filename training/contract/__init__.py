"""What training and serving owe each other: the package of a version, and the repository it lies in."""
