"""A session of somebody on call, as it is typed: run as a test, and written into the documentation."""
