"""Files: read with limits and named errors, written whole or not at all, and kept in the cache."""
