"""Checkpoints in, safetensors out; never imported by inference."""
