"""The interface of spconv 2.3.8, as far as snippets meet it; nothing of its code, and no convolution."""
