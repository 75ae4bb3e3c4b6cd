"""One module per library that can use a pool's memory; each is imported when first needed."""
