"""Warm start: the first prompts of a workspace also go to every other model, so that its router learns of all."""
