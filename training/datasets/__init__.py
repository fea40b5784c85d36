"""Images on their way in: archives, folders, splits, the store."""
