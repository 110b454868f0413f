"""``doctor``: looks at broker, state, keys and environment, and says what to change. It changes nothing.

Each module looks at one thing and returns findings; none of them raises because of what it finds.
"""
