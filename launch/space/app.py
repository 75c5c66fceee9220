"""Starts the demo as a Hugging Face Space; the options are those of sr3-demo."""

from sr3_jax.demo import command

OPTIONS = [
  '--host=0.0.0.0',
  '--max-pixels=65536',
  '--max-samples=4',
  '--max-steps=100',
  # '--model=hf://owner/name',
]

if __name__ == '__main__':
  command.main(OPTIONS)
