"""Read and write video: decoding with exact times and damage, thumbnails, writing, live sources."""
