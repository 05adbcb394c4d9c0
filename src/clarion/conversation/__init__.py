"""What a conversation is, apart from any face: reasoning and answer, the history, calls of tools."""
