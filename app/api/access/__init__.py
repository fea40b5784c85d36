"""Says who may do what: the keys, the scope that each route needs, and what a caller without a key may do."""
