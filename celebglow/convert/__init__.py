"""Other people's Glow checkpoints as flows of ours: OpenAI's frozen TensorFlow graph, and three PyTorch implementations."""
