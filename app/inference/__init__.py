"""The hot path: an admitted image is decoded, batched, run and answered."""
