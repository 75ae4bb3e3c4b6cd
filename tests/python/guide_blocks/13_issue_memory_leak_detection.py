# Ensure buffers are released after use
buffer = pool.allocate(size)
# ... use buffer ...
del buffer  # Trigger ARC release
