"""The endpoints of OpenAI's API, and those that llama-server and others have beside them."""
