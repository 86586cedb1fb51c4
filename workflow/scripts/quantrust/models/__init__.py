"""Family adapters: component map, prompt, token roles and loading."""
