"""PEFT methods: one file each, named as a spec's ``methods.<name>.type`` names it."""
