"""Batched greedy decoding that yields answers, log-probabilities and hidden states."""
