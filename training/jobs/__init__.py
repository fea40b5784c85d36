"""Training as a durable background job."""
