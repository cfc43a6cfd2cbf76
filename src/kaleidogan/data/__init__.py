"""Pictures -> shards -> batches."""
