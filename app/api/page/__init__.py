"""The pages for people: one shows what is served, and one has the API to try out."""
