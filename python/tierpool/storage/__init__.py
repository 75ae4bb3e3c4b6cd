"""Models larger than memory: what is in a GGUF file, what this machine can do, and the plan that follows."""
