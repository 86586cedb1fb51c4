"""Answering over HTTP, as `quantrust serve` does: one bundle, the protocol of OpenAI's chat completions."""
