"""`pureboot demo`: the product's one sentence, acted out by real processes over real sockets."""
