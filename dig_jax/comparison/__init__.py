"""Train several backbones alike, and set what they reach beside what they cost."""
