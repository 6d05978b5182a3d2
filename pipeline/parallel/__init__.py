"""Several cards for one video: guidance passes apart, a split sequence, tiles of the VAE, shards of the weights."""
