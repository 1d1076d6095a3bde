"""Files of many requests (OpenAI's batch format), answered line by line into another file."""
