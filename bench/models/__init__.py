"""Model families: one file each, named as a spec's ``model.family`` names it."""
