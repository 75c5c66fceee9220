"""The command `sr3-demo`: a page that restores pictures in a browser."""
