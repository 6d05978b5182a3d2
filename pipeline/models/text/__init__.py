"""umT5: prompts to embeddings, block by block, and the cache of those."""
