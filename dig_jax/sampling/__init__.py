"""Images from parameters: the sampler, label rules, what was drawn."""
