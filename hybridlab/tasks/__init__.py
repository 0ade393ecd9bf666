"""What a stack is trained on: batches of tokens, and the documents they come from."""
