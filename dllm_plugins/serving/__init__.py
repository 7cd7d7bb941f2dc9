"""A server for the clients of OpenAI's interface: shapes, queue, answers, and the application around them."""
