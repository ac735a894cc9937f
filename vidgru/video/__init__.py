"""Reading and writing video: decoding with exact times, damage, thumbnails, live sources."""
